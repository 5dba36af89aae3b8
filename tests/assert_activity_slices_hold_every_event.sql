-- Each dimension of activity_slices holds exactly the events of the day: no slice adds or loses one.
{{ config(tags=['activity']) }}

with users as (

    select
        ds,
        sum(views) as views,
        sum(likes) as likes,
        sum(messages_sent) as messages_sent,
        sum(messages_received) as messages_received
    from {{ ref('fct_user_activity') }}
    where {{ in_window('ds') }}
    group by ds

),

slices as (

    select
        event_date,
        dimension,
        sum(views) as views,
        sum(likes) as likes,
        sum(messages_sent) as messages_sent,
        sum(messages_received) as messages_received
    from {{ ref('activity_slices') }}
    where {{ in_window('event_date') }}
    group by event_date, dimension

)

select
    users.ds,
    slices.event_date,
    slices.dimension
from users
full outer join slices on users.ds = slices.event_date
where
    users.ds is null
    or slices.event_date is null
    or users.views <> slices.views
    or users.likes <> slices.likes
    or users.messages_sent <> slices.messages_sent
    or users.messages_received <> slices.messages_received
