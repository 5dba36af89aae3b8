-- The mart holds exactly the events of the ODS that have a client: no join adds or loses one.
{{ config(tags=['telemetry']) }}

with ods as (

    select
        ds,
        count(*) as events_cnt
    from {{ ref('ods_telemetry') }}
    where {{ in_window('ds') }} and client_id is not null
    group by ds

),

mart as (

    select
        ds,
        sum(events_cnt) as events_cnt
    from {{ ref('dm_client_telemetry') }}
    where {{ in_window('ds') }}
    group by ds

)

select
    ods.events_cnt as ods_events_cnt,
    mart.events_cnt as mart_events_cnt,
    coalesce(ods.ds, mart.ds) as ds
from ods
full outer join mart on ods.ds = mart.ds
where ods.events_cnt is null or mart.events_cnt is null or ods.events_cnt <> mart.events_cnt
