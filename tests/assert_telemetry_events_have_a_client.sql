-- Events without a client are in no row of dm_client_telemetry: how many, by day.
{{ config(severity='warn', tags=['telemetry']) }}

select
    ds,
    count(*) as events_cnt
from {{ ref('ods_telemetry') }}
where {{ in_window('ds') }} and client_id is null
group by ds
