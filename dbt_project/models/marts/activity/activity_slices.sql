-- Grain: one row per event_date, dimension, dimension_value.

{{ config(
    unique_key='event_date',
    meta={
        'unit': 'key',
        'touched_keys': "select event_date from {{ this }} where {{ in_window('event_date') }}",
    },
) }}

{% set dimensions = ['os', 'gender', 'age'] %}

with users as (

    select
        activity.ds,
        activity.user_id,
        activity.os,
        activity.age,
        activity.views,
        activity.likes,
        activity.messages_received,
        activity.messages_sent,
        coalesce(codes.name, activity.gender) as gender
    from {{ ref('fct_user_activity') }} as activity
    left join {{ ref('gender_codes') }} as codes on activity.gender = codes.code
    where {{ in_window('activity.ds') }}

),

-- Each user is in one slice of each dimension.
slices as (

    {% for dimension in dimensions -%}
        select
            ds,
            user_id,
            views,
            likes,
            messages_received,
            messages_sent,
            '{{ dimension }}' as dimension,
            {{ dimension }} as dimension_value
        from users
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

totals as (

    select
        ds,
        dimension,
        dimension_value,
        sum(views) as views,
        sum(likes) as likes,
        sum(messages_received) as messages_received,
        sum(messages_sent) as messages_sent
    from slices
    group by ds, dimension, dimension_value

),

pairs as (

    select
        ds,
        user_id,
        receiver_id
    from {{ ref('stg_message_actions') }}
    where {{ in_window('ds') }} and receiver_id is not null
    group by ds, user_id, receiver_id

),

-- Users whom a slice wrote to and who wrote to it, each once: two of its users may share them.
others as (

    select
        slices.ds as ds, -- ClickHouse would call it `slices.ds`
        slices.dimension,
        slices.dimension_value,
        'sent' as direction,
        pairs.receiver_id as other_id
    from pairs
    inner join slices on pairs.ds = slices.ds and pairs.user_id = slices.user_id
    group by slices.ds, slices.dimension, slices.dimension_value, pairs.receiver_id
    union all
    select
        slices.ds as ds,
        slices.dimension,
        slices.dimension_value,
        'received' as direction,
        pairs.user_id as other_id
    from pairs
    inner join slices on pairs.ds = slices.ds and pairs.receiver_id = slices.user_id
    group by slices.ds, slices.dimension, slices.dimension_value, pairs.user_id

),

correspondents as (

    select
        ds,
        dimension,
        dimension_value,
        sum(case when direction = 'received' then 1 else 0 end) as users_received,
        sum(case when direction = 'sent' then 1 else 0 end) as users_sent
    from others
    group by ds, dimension, dimension_value

)

select
    totals.ds as event_date,
    totals.dimension as dimension,
    totals.dimension_value as dimension_value,
    cast(totals.views as {{ dbt.type_bigint() }}) as views,
    cast(totals.likes as {{ dbt.type_bigint() }}) as likes,
    cast(totals.messages_received as {{ dbt.type_bigint() }}) as messages_received,
    cast(totals.messages_sent as {{ dbt.type_bigint() }}) as messages_sent,
    cast(coalesce(correspondents.users_received, 0) as {{ dbt.type_bigint() }}) as users_received,
    cast(coalesce(correspondents.users_sent, 0) as {{ dbt.type_bigint() }}) as users_sent
from totals
left join correspondents
    on
        totals.ds = correspondents.ds
        and totals.dimension = correspondents.dimension
        and totals.dimension_value = correspondents.dimension_value
