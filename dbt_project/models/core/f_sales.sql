-- Grain: one row per order_id.

{{ config(meta={'unit': 'day'}) }}

select
    ds,
    order_id,
    customer_id,
    item_id,
    city_id,
    status,
    cast(case when status = 'refunded' then -quantity else quantity end as numeric(18, 3)) as quantity,
    cast(case when status = 'refunded' then -payment_amount else payment_amount end as numeric(18, 2)) as payment_amount
from {{ ref('ods_orders') }}
where {{ in_window('ds') }}
