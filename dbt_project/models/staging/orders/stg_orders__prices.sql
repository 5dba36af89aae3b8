-- Grain: one row per slot_kind, slot_date, line_no.

select
    slot_kind,
    slot_date,
    line_no,
    item_name,
    price
from {{ source('orders', 'price_log') }}
