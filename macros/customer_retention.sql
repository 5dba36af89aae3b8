{#- Query: new, returning and refunding customers by period, and by more columns if these are named.
    The one definition of both retention marts (SPEC.md section 2).

    `sales` is a step with the columns of f_sales. One pass over it makes a row a customer and day, a
    twentieth of the lines; each such row goes into its week and its month, and a row a customer and
    period is then all that the measures need. Rows without a customer are in no measure and keep their
    period's row. -#}
{% macro customer_retention(sales, by=[]) -%}
{%- set keys = by | join(', ') ~ (', ' if by) -%}
days as (

    select
        {{ keys }}customer_id,
        {{ week_start('ds') }} as week_start,
        {{ month_start('ds') }} as month_start,
        shipped_cnt,
        refunded_cnt,
        revenue
    from (
        select
            {{ keys }}customer_id,
            ds,
            {%- for status in ['shipped', 'refunded'] %}
            cast(
                count(case when status = '{{ status }}' and customer_id is not null then 1 end)
                as {{ dbt.type_int() }}
            ) as {{ status }}_cnt,
            {%- endfor %}
            sum(payment_amount) as revenue
        from {{ sales }}
        group by {{ keys }}customer_id, ds
    ) as customer_days

),

kinds as (

    select 'weekly' as period_name
    union all
    select 'monthly' as period_name

),

placed as (

    select
        {{ keys }}days.customer_id,
        days.shipped_cnt,
        days.refunded_cnt,
        days.revenue,
        kinds.period_name,
        case when kinds.period_name = 'weekly' then days.week_start else days.month_start end as period_id
    from days
    cross join kinds

),

customers as (

    select
        {{ keys }}customer_id,
        period_name,
        period_id,
        sum(shipped_cnt) as shipped_cnt,
        sum(refunded_cnt) as refunded_cnt,
        sum(revenue) as revenue
    from placed
    where {{ in_window_periods() }}
    group by {{ keys }}customer_id, period_name, period_id

)

select
    cast(period_name as {{ dbt.type_string() }}) as period_name,
    period_id,
    {{ keys }}
    cast(sum(case when shipped_cnt = 1 then 1 else 0 end) as {{ dbt.type_bigint() }}) as new_customers_count,
    cast(sum(case when shipped_cnt = 1 then revenue else 0 end) as numeric(38, 2)) as new_customers_revenue,
    cast(sum(case when shipped_cnt > 1 then 1 else 0 end) as {{ dbt.type_bigint() }}) as returning_customers_count,
    cast(sum(case when shipped_cnt > 1 then revenue else 0 end) as numeric(38, 2)) as returning_customers_revenue,
    cast(sum(case when refunded_cnt > 0 then 1 else 0 end) as {{ dbt.type_bigint() }}) as refunded_customer_count,
    cast(sum(refunded_cnt) as {{ dbt.type_bigint() }}) as customers_refunded
from customers
group by {{ keys }}period_name, period_id
{%- endmacro %}
