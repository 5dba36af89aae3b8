-- Grain: one row per ds, client_id.

{{ config(meta={'unit': 'day'}) }}

with events as (

    select
        ds,
        client_id,
        duration_ms,
        status,
        session_id,
        event_ts
    from {{ ref('ods_telemetry') }}
    where {{ in_window('ds') }} and client_id is not null

),

counts as (

    select
        ds,
        client_id,
        count(*) as events_cnt,
        sum(case when status = 'error' then 1 else 0 end) as errors_cnt,
        avg(duration_ms) as avg_latency_ms,
        max(event_ts) as last_event_at
    from events
    group by ds, client_id

),

latencies as (

    {{ percentile_by_key('events', keys=['ds', 'client_id'], value='duration_ms', fraction=0.95, name='p95_latency_ms') }}

),

-- Two steps are half the price of a distinct count.
session_ids as (

    select
        ds,
        client_id,
        session_id
    from events
    where session_id is not null
    group by ds, client_id, session_id

),

sessions as (

    select
        ds,
        client_id,
        count(*) as sessions_cnt
    from session_ids
    group by ds, client_id

),

-- A version holds at the end of the days from its own to the day before the next one's.
clients as (

    select
        client_id,
        segment,
        country,
        plan,
        {{ business_date('valid_from') }} as first_ds,
        {{ business_date('valid_to') }} as next_ds
    from {{ ref('ods_crm_clients_history') }}

)

select
    counts.ds as ds,
    counts.client_id as client_id,
    clients.segment,
    clients.country,
    clients.plan,
    cast(counts.events_cnt as {{ dbt.type_bigint() }}) as events_cnt,
    cast(counts.errors_cnt as {{ dbt.type_bigint() }}) as errors_cnt,
    counts.avg_latency_ms,
    latencies.p95_latency_ms,
    cast(coalesce(sessions.sessions_cnt, 0) as {{ dbt.type_bigint() }}) as sessions_cnt,
    counts.last_event_at,
    {{ run_at() }} as loaded_at
from counts
left join latencies
    on counts.ds = latencies.ds and counts.client_id = latencies.client_id
left join sessions
    on counts.ds = sessions.ds and counts.client_id = sessions.client_id
left join clients
    on
        counts.client_id = clients.client_id
        and counts.ds >= clients.first_ds
        and (counts.ds < clients.next_ds or clients.next_ds is null)
