-- Grain: one row per slot_kind, slot_date, line_no.

select
    order_lines.ds,
    order_lines.slot_kind,
    order_lines.slot_date,
    order_lines.line_no,
    order_lines.order_id,
    order_lines.uniq_id,
    order_lines.date_time,
    order_lines.city_id,
    order_lines.city_name,
    order_lines.customer_id,
    order_lines.first_name,
    order_lines.last_name,
    order_lines.item_id,
    order_lines.item_name,
    order_lines.quantity,
    order_lines.payment_amount,
    order_lines.status
from {{ source('orders', 'user_order_log') }} as order_lines
left join {{ ref('stg_orders__files') }} as increments
    on
        order_lines.ds = increments.slot_date
        and increments.slot_kind = 'increment'
        and increments.file = 'user_order_log'
where order_lines.slot_kind = 'increment' or increments.slot_date is null
