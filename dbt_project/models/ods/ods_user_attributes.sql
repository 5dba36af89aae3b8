-- Grain: one row per user_id, attribute, valid_from.

{{ config(meta={'unit': 'whole', 'reads_itself': true}) }}

{% set attributes = ['os', 'gender', 'age'] %}
-- What was said before the first day of what has landed since this table was built is not read again.
{% set landed = landed_since(this, ['feed_actions', 'message_actions']) %}
{% set first_ds = landed.first_ds %}
{% set is_new %}{{ '1 = 1' if first_ds is none else 'ds >= ' ~ day_literal(first_ds) if first_ds else '1 = 0' }}{% endset %}

with said as (

    select
        ds,
        user_id,
        acted_at as said_at,
        gender,
        age,
        nullif(os, '') as os
    from {{ ref('stg_feed_actions') }}
    where {{ is_new }}
    union all
    select
        ds,
        user_id,
        sent_at as said_at,
        gender,
        age,
        nullif(os, '') as os
    from {{ ref('stg_message_actions') }}
    where {{ is_new }}

),

-- One pass over the events; what follows is a row a user and day.
days as (

    select
        ds,
        user_id,
        {{ last_known('os', 'said_at', is_text=true) }} as last_os,
        {{ last_known('gender', 'said_at') }} as last_gender,
        {{ last_known('age', 'said_at') }} as last_age
    from said
    group by ds, user_id

),

known as (

    {% for attribute in attributes -%}
        select
            ds,
            user_id,
            '{{ attribute }}' as attribute,
            cast(last_{{ attribute }} as {{ dbt.type_string() }}) as attribute_value
        from days
        where last_{{ attribute }} is not null
        {{ 'union all' if not loop.last }}
    {% endfor %}
    {%- if first_ds is not none -%}
    union all
    select
        valid_from as ds,
        user_id,
        attribute,
        attribute_value
    from {{ this }}
    {{ 'where valid_from < ' ~ day_literal(first_ds) if first_ds }}
    {%- endif %}

),

compared as (

    select
        ds,
        user_id,
        attribute,
        attribute_value,
        lag({{ nullable('attribute_value') }}) over (partition by user_id, attribute order by ds) as value_before
    from known

)

select
    user_id,
    attribute,
    attribute_value,
    ds as valid_from,
    lead({{ nullable('ds') }}) over (partition by user_id, attribute order by ds) as valid_to,
    cast({{ landed.load_id }} as {{ dbt.type_bigint() }}) as _seen_load_id
from compared
where value_before is null or attribute_value <> value_before
