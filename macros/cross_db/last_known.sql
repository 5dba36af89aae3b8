{#- Aggregate: the non-null value of the latest second; in one second the greatest, numbers as numbers
    and texts by their bytes. -#}
{% macro last_known(value, at, is_text=false) -%}
    {{ return(adapter.dispatch('last_known', 'vitrina')(value, at, is_text)) }}
{%- endmacro %}

{% macro default__last_known(value, at, is_text) -%}
    {{ return(not_implemented('last_known')) }}
{%- endmacro %}

{#- The greatest pair, and of it the value: one pass, where ranking would sort three times. -#}
{% macro postgres__last_known(value, at, is_text) -%}
    {%- if is_text -%}
        (max(array[to_char({{ at }} at time zone 'UTC', 'YYYYMMDDHH24MISS'), {{ value }}] collate "C") filter (where {{ value }} is not null))[2]
    {%- else -%}
        (max(array[cast(floor(extract(epoch from {{ at }})) as bigint), {{ value }}]) filter (where {{ value }} is not null))[2]
    {%- endif -%}
{%- endmacro %}

{% macro clickhouse__last_known(value, at, is_text) -%}
    argMaxOrNullIf({{ value }}, tuple(toStartOfSecond({{ at }}), {{ value }}), {{ value }} is not null)
{%- endmacro %}
