-- Clients that the CRM does not know, by day: the mart has their events, without attributes.
{{ config(severity='warn', tags=['telemetry']) }}

select
    mart.ds,
    mart.client_id,
    mart.events_cnt
from {{ ref('dm_client_telemetry') }} as mart
left join {{ ref('ods_crm_clients') }} as clients on mart.client_id = clients.client_id
where {{ in_window('mart.ds') }} and clients.client_id is null
