-- Grain: one row per slot_kind, slot_date, line_no.

select
    lines.ds,
    lines.slot_kind,
    lines.slot_date,
    lines.line_no,
    lines.order_id,
    lines.uniq_id,
    lines.date_time,
    lines.city_id,
    lines.city_name,
    lines.customer_id,
    lines.first_name,
    lines.last_name,
    lines.item_id,
    lines.item_name,
    lines.quantity,
    lines.payment_amount,
    lines.status
from {{ source('orders', 'user_order_log') }} as lines
left join {{ ref('stg_orders__files') }} as increments
    on
        lines.ds = increments.slot_date
        and increments.slot_kind = 'increment'
        and increments.file = 'user_order_log'
where lines.slot_kind = 'increment' or increments.slot_date is null
