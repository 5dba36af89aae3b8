-- New and returning customers' revenue of each period is what its customers with an order paid, net of
-- refunds: no join multiplies it (O01) and nobody is in neither or in both.
{{ config(tags=['orders']) }}

with dated as (

    select
        sales.customer_id,
        sales.status,
        sales.payment_amount,
        {{ week_start('sales.ds') }} as week_start,
        {{ month_start('sales.ds') }} as month_start
    from {{ ref('f_sales') }} as sales
    where {{ in_days_of_window_periods('sales.ds') }} and sales.customer_id is not null

),

placed as (

    select
        'weekly' as period_name,
        week_start as period_id,
        customer_id,
        status,
        payment_amount
    from dated
    union all
    select
        'monthly' as period_name,
        month_start as period_id,
        customer_id,
        status,
        payment_amount
    from dated

),

customers as (

    select
        period_name,
        period_id,
        customer_id,
        sum(payment_amount) as revenue
    from placed
    where {{ in_window_periods() }}
    group by period_name, period_id, customer_id
    having max(status) = 'shipped'

),

sales as (

    select
        period_name,
        period_id,
        count(*) as customers_count,
        sum(revenue) as revenue
    from customers
    group by period_name, period_id

),

mart as (

    select
        period_name,
        period_id,
        new_customers_count + returning_customers_count as customers_count,
        new_customers_revenue + returning_customers_revenue as revenue
    from {{ ref('f_customer_retention') }}
    where {{ in_window_periods() }}

)

select
    sales.customers_count as sales_customers_count,
    mart.customers_count as mart_customers_count,
    sales.revenue as sales_revenue,
    mart.revenue as mart_revenue,
    coalesce(sales.period_name, mart.period_name) as period_name,
    coalesce(sales.period_id, mart.period_id) as period_id
from sales
full outer join mart on sales.period_name = mart.period_name and sales.period_id = mart.period_id
where
    coalesce(sales.customers_count, 0) <> coalesce(mart.customers_count, 0)
    or coalesce(sales.revenue, 0) <> coalesce(mart.revenue, 0)
    or mart.period_id is null
