-- Grain: one row per slot_kind, slot_date, line_no.

select
    activities.ds,
    activities.slot_kind,
    activities.slot_date,
    activities.line_no,
    activities.uniq_id,
    activities.date_time,
    activities.action_id,
    activities.customer_id,
    activities.quantity
from {{ source('orders', 'user_activity_log') }} as activities
left join {{ ref('stg_orders__files') }} as increments
    on
        activities.ds = increments.slot_date
        and increments.slot_kind = 'increment'
        and increments.file = 'user_activity_log'
where activities.slot_kind = 'increment' or increments.slot_date is null
