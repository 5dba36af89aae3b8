-- Grain: one row per message; identical rows are real messages.

{% set columns = {
    'user_id': 'number', 'receiver_id': 'number', 'reciever_id': 'number', 'gender': 'number', 'age': 'number',
    'country': 'text', 'city': 'text', 'os': 'text', 'source': 'text', 'exp_group': 'text',
} %}

select
    ds,
    user_id,
    time as sent_at,
    gender,
    age,
    country,
    city,
    os,
    source,
    exp_group,
    -- Two spellings of one column; 0 is nobody.
    coalesce(nullif(receiver_id, 0), nullif(reciever_id, 0)) as receiver_id
from {{ feed_rows('message_actions', columns) }}
