-- Grain: one row per ds, user_id.

{{ config(meta={'unit': 'day'}) }}

with feed as (

    select
        ds,
        user_id,
        sum(case when action = 'view' then 1 else 0 end) as views,
        sum(case when action = 'like' then 1 else 0 end) as likes
    from {{ ref('stg_feed_actions') }}
    where {{ in_window('ds') }}
    group by ds, user_id

),

-- Two steps are half the price of a distinct count.
pairs as (

    select
        ds,
        user_id,
        receiver_id,
        count(*) as messages
    from {{ ref('stg_message_actions') }}
    where {{ in_window('ds') }}
    group by ds, user_id, receiver_id

),

parts as (

    select
        ds,
        user_id,
        views,
        likes,
        0 as messages_sent,
        0 as messages_received,
        0 as users_sent,
        0 as users_received
    from feed
    union all
    select
        ds,
        user_id,
        0 as views,
        0 as likes,
        sum(messages) as messages_sent,
        0 as messages_received,
        count(receiver_id) as users_sent,
        0 as users_received
    from pairs
    group by ds, user_id
    union all
    select
        ds,
        receiver_id as user_id,
        0 as views,
        0 as likes,
        0 as messages_sent,
        sum(messages) as messages_received,
        0 as users_sent,
        count(*) as users_received
    from pairs
    where receiver_id is not null
    group by ds, receiver_id

),

totals as (

    select
        ds,
        user_id,
        sum(views) as views,
        sum(likes) as likes,
        sum(messages_sent) as messages_sent,
        sum(messages_received) as messages_received,
        sum(users_sent) as users_sent,
        sum(users_received) as users_received
    from parts
    group by ds, user_id

),

attributes as (

    select
        totals.ds as ds, -- ClickHouse would call them `totals.…`
        totals.user_id as user_id,
        max(case when versions.attribute = 'os' then versions.attribute_value end) as os,
        max(case when versions.attribute = 'gender' then versions.attribute_value end) as gender,
        max(case when versions.attribute = 'age' then versions.attribute_value end) as age
    from totals
    inner join {{ ref('ods_user_attributes') }} as versions
        on
            totals.user_id = versions.user_id
            and totals.ds >= versions.valid_from
            and (totals.ds < versions.valid_to or versions.valid_to is null)
    group by totals.ds, totals.user_id

)

select
    totals.ds as ds,
    totals.user_id as user_id,
    coalesce(attributes.os, 'unknown') as os,
    coalesce(attributes.gender, 'unknown') as gender,
    coalesce(attributes.age, 'unknown') as age,
    cast(totals.views as {{ dbt.type_bigint() }}) as views,
    cast(totals.likes as {{ dbt.type_bigint() }}) as likes,
    cast(totals.messages_sent as {{ dbt.type_bigint() }}) as messages_sent,
    cast(totals.messages_received as {{ dbt.type_bigint() }}) as messages_received,
    cast(totals.users_sent as {{ dbt.type_bigint() }}) as users_sent,
    cast(totals.users_received as {{ dbt.type_bigint() }}) as users_received
from totals
left join attributes
    on totals.ds = attributes.ds and totals.user_id = attributes.user_id
