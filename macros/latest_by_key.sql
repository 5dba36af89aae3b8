{#- Query: one row a non-null key of the orders, with the values of the one of the greatest
    (date_time, order_id), refunds included. The latest instant first: to sort all orders by both
    takes three times as long. -#}
{% macro latest_by_key(orders, key, values) -%}
with latest as (

    select
        {{ key }},
        max(date_time) as date_time
    from {{ orders }}
    where {{ key }} is not null
    group by {{ key }}

),

ranked as (

    select
        orders.{{ key }},
        {%- for value in values %}
        orders.{{ value }},
        {%- endfor %}
        row_number() over (
            partition by orders.{{ key }}
            order by {{ text_order('orders.order_id') }} desc
        ) as place
    from {{ orders }} as orders
    inner join latest on orders.{{ key }} = latest.{{ key }} and orders.date_time = latest.date_time

)

select
    {{ key }},
    {{ values | join(',\n    ') }}
from ranked
where place = 1
{%- endmacro %}
