{#- Query: one row a non-null key of the orders, with the values of the one of the greatest
    (date_time, order_id), refunds included; and what decided it, as `_ds`, `_date_time`, `_order_id`.
    For models of the unit `key`, whose touched keys are those with a `_ds` in the window.

    In a window it costs what the window's orders cost: on other days nothing has changed, so what was
    the newest there still is. Only keys that have lost their newest order, and have no newer one in
    the window, are looked for in all orders: a scan where there are some, nothing where there are none. -#}
{% macro latest_by_key(orders, key, values) -%}
{#- In this order: a unit test has no window, and no table that dbt-clickhouse could look for. -#}
{%- set is_by_window = window_days() is not none and is_incremental() -%}
{%- set columns = [key] + values -%}
{%- set candidates = 'candidates' if is_by_window else orders -%}
with {% if is_by_window -%}
candidates as (

    {{ candidates_of_window(orders, key, columns) | indent(4) }}

),

{% endif -%}
-- The instant first: to sort all orders by both takes three times as long.
latest as (

    select
        {{ key }},
        max(date_time) as date_time
    from {{ candidates }}
    where {{ key }} is not null
    group by {{ key }}

),

ranked as (

    select
        {%- for column in columns %}
        orders.{{ column }},
        {%- endfor %}
        orders.ds,
        orders.date_time,
        orders.order_id,
        row_number() over (
            partition by orders.{{ key }}
            order by {{ text_order('orders.order_id') }} desc
        ) as place
    from {{ candidates }} as orders
    inner join latest on orders.{{ key }} = latest.{{ key }} and orders.date_time = latest.date_time

)

select
    {{ columns | join(',\n    ') }},
    ds as _ds,
    date_time as _date_time,
    order_id as _order_id
from ranked
where place = 1
{%- endmacro %}


{#- Query: the window's orders, and of the others those that may be newer. -#}
{% macro candidates_of_window(orders, key, columns) -%}
with built as (

    select
        {{ columns | join(',\n        ') }},
        ds,
        date_time,
        order_id
    from {{ orders }}
    where {{ in_window('ds') }} and {{ key }} is not null

),

newest as (

    select
        {{ key }},
        max(date_time) as date_time
    from built
    group by {{ key }}

),

-- Of one instant are orders of one day alone: only an older one can be on a day outside the window.
lost as (

    select known.{{ key }}
    from {{ this }} as known
    left join newest on known.{{ key }} = newest.{{ key }} and known._date_time <= newest.date_time
    where {{ in_window('known._ds') }} and newest.{{ key }} is null

)

select * from built
union all
select
    {{ columns | join(',\n    ') }},
    _ds as ds,
    _date_time as date_time,
    _order_id as order_id
from {{ this }}
where not {{ in_window('_ds') }} and {{ key }} in (select newest.{{ key }} from newest)
union all
select
    {{ columns | join(',\n    ') }},
    ds,
    date_time,
    order_id
from {{ orders }}
where not {{ in_window('ds') }} and {{ key }} in (select lost.{{ key }} from lost)
{%- endmacro %}
