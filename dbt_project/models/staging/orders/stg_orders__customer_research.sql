-- Grain: one row per slot_kind, slot_date, line_no.

select
    research.ds,
    research.slot_kind,
    research.slot_date,
    research.line_no,
    research.category_id,
    research.geo_id,
    research.sales_qty,
    research.sales_amt
from {{ source('orders', 'customer_research') }} as research
left join {{ ref('stg_orders__files') }} as increments
    on
        research.ds = increments.slot_date
        and increments.slot_kind = 'increment'
        and increments.file = 'customer_research'
where research.slot_kind = 'increment' or increments.slot_date is null
