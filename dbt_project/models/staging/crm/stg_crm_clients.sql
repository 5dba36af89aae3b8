-- Grain: one row per id, updated_at, content of the record.

select
    id as client_id,
    segment,
    country,
    plan,
    created_at,
    updated_at,
    _served_no
from {{ source('crm', 'crm_clients') }}
