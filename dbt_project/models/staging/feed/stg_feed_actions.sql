-- Grain: one row per view or like; identical rows are real events.

{% set columns = {
    'user_id': 'number', 'post_id': 'text', 'action': 'text', 'gender': 'number', 'age': 'number',
    'country': 'text', 'city': 'text', 'os': 'text', 'source': 'text', 'exp_group': 'text',
} %}

select
    ds,
    user_id,
    post_id,
    action,
    time as acted_at,
    gender,
    age,
    country,
    city,
    os,
    source,
    exp_group
from {{ feed_rows('feed_actions', columns) }}
where action in ('view', 'like')
