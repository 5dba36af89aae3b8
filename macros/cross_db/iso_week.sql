{#- Expression: the number of the ISO week of a date, 1 to 53, an integer. -#}
{% macro iso_week(day) -%}
    {{ return(adapter.dispatch('iso_week', 'vitrina')(day)) }}
{%- endmacro %}

{% macro default__iso_week(day) -%}
    {{ return(not_implemented('iso_week')) }}
{%- endmacro %}

{% macro postgres__iso_week(day) -%}
    cast(extract(week from {{ day }}) as integer)
{%- endmacro %}

{% macro clickhouse__iso_week(day) -%}
    toInt32(toISOWeek({{ day }}))
{%- endmacro %}
