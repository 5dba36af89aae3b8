-- Grain: one row per client_id, valid_from.

{{ config(meta={'unit': 'whole'}) }}

with versions as (

    select
        client_id,
        segment,
        country,
        plan,
        created_at,
        updated_at,
        row_number() over (
            partition by client_id, updated_at
            order by _served_no desc
        ) as place
    from {{ ref('stg_crm_clients') }}

),

-- Of versions with the same instant the one served last holds.
held as (

    select
        client_id,
        segment,
        country,
        plan,
        created_at,
        updated_at,
        row_number() over (partition by client_id order by updated_at) as version_no,
        lead({{ nullable('updated_at') }}) over (partition by client_id order by updated_at) as valid_to
    from versions
    where place = 1

)

select
    client_id,
    segment,
    country,
    plan,
    created_at,
    updated_at,
    case
        when version_no = 1 and created_at < updated_at then created_at
        else updated_at
    end as valid_from,
    valid_to
from held
