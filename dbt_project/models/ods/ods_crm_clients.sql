-- Grain: one row per client_id.

{{ config(meta={'unit': 'whole'}) }}

select
    client_id,
    segment,
    country,
    plan,
    created_at,
    updated_at,
    valid_from
from {{ ref('ods_crm_clients_history') }}
where valid_to is null
