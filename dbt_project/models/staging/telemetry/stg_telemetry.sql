-- Grain: one row per ds, event_id; per event where the source gives no event_id.

-- Two branches over the source, not over one named step: PostgreSQL would compute a step that is
-- used twice for all days before it looks at the one that is asked for. And a source without ids
-- is not sorted for nothing.
with without_id as (

    select * from {{ source('telemetry', 'telemetry_events') }}
    where event_id is null

),

ranked as (

    select
        *,
        row_number() over (
            partition by ds, event_id
            order by
                event_ts desc,
                duration_ms desc nulls last,
                {{ text_order('client_id') }} desc nulls last,
                {{ text_order('event_type') }} desc nulls last,
                {{ text_order('status') }} desc nulls last,
                {{ text_order('session_id') }} desc nulls last
        ) as place
    from {{ source('telemetry', 'telemetry_events') }}
    where event_id is not null

)

select
    ds,
    event_id,
    client_id,
    event_type,
    duration_ms,
    status,
    session_id,
    event_ts
from without_id
union all
select
    ds,
    event_id,
    client_id,
    event_type,
    duration_ms,
    status,
    session_id,
    event_ts
from ranked
where place = 1
