-- Grain: one row per slot_kind, slot_date, file.

select
    slot_kind,
    slot_date,
    file,
    delivery_id,
    url,
    etag,
    size_bytes,
    rows_landed,
    rows_quarantined,
    landed_at
from {{ source('orders', 'order_files') }}
