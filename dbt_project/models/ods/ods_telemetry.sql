-- Grain: one row per ds, event_id; per event where the source gives no event_id.

{{ config(meta={'unit': 'day', 'sort_by': ['client_id', 'event_ts']}) }}

select
    ds,
    event_id,
    client_id,
    event_type,
    duration_ms,
    status,
    session_id,
    event_ts
from {{ ref('stg_telemetry') }}
where {{ in_window('ds') }}
