{#- Relation: the usable rows of a table of the feed, with their business day. As landed; where
    FEED_CLICKHOUSE_DB names a database of the warehouse's own server, the source's own rows, typed
    and left out as `ingestion/sources/feed.py` would (docs/decisions/0010-activity.md). -#}
{% macro feed_rows(table, columns) -%}
    {%- if not env_var('FEED_CLICKHOUSE_DB', '') or not execute or model.resource_type == 'unit_test' -%}
        {{ source('feed', table) }}
    {%- else -%}
        {{ return(adapter.dispatch('feed_rows_in_place', 'vitrina')(source('feed', table), columns)) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__feed_rows_in_place(relation, columns) -%}
    {{ return(not_implemented('feed_rows_in_place')) }}
{%- endmacro %}

{% macro clickhouse__feed_rows_in_place(relation, columns) -%}
    {%- set there = {} -%}
    {%- for column in adapter.get_columns_in_relation(relation) -%}
        {% do there.update({column.name: column.dtype}) %}
    {%- endfor -%}
    {%- set is_text = there.get('time') == 'String' -%}
    {%- set form = '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?[ ]?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?)?$' -%}
    {%- set parsed = "if(match(ifNull(time, ''), '" ~ form ~ "'), parseDateTime64BestEffortOrNull(assumeNotNull(time), 6, 'UTC'), null)" -%}
    {#- Of the column itself where it is an instant, so that the table's order serves. -#}
    (
        select
            assumeNotNull({{ business_date(parsed if is_text else 'time') }}) as ds,
            assumeNotNull({{ parsed if is_text else "toDateTime64(time, 6, 'UTC')" }}) as time,
            {%- for name, kind in columns.items() %}
            {% if name not in there -%}
                cast(null as Nullable({{ 'Int64' if kind == 'number' else 'String' }}))
            {%- elif kind == 'number' -%}
                accurateCastOrNull({{ name }}, 'Int64')
            {%- else -%}
                toString({{ name }})
            {%- endif %} as {{ name }}{{ ',' if not loop.last }}
            {%- endfor %}
        from {{ relation }}
        where
            {{ parsed if is_text else 'time' }} is not null
            {%- for name, kind in columns.items() if kind == 'number' and name in there %}
            and (
                accurateCastOrNull({{ name }}, 'Int64') is not null
                {%- if name != 'user_id' %} or {{ name }} is null or toString({{ name }}) = ''{% endif %}
            )
            {%- endfor %}
            {%- for name, type in there.items() if type == 'String' %}
            and ifNull(isValidUTF8({{ name }}) and position({{ name }}, '\0') = 0, true)
            {%- endfor %}
    ) as landed
{%- endmacro %}
