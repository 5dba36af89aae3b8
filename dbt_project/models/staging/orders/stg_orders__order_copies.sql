-- Grain: one row per order_id, ds, slot_kind, slot_date.

select
    copies.order_id,
    copies.ds,
    copies.slot_kind,
    copies.slot_date,
    copies.last_line_no
from {{ source('orders', 'order_copies') }} as copies
left join {{ ref('stg_orders__files') }} as increments
    on
        copies.ds = increments.slot_date
        and increments.slot_kind = 'increment'
        and increments.file = 'user_order_log'
where copies.slot_kind = 'increment' or increments.slot_date is null
