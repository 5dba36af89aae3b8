-- Grain: one row per record that could not be used.

select
    source,
    place,
    payload,
    encoding,
    reason,
    quarantined_at
from {{ source('ledger', 'quarantine') }}
