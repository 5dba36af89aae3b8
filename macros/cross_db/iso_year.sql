{#- Expression: the year to which the ISO week of a date belongs, an integer. -#}
{% macro iso_year(day) -%}
    {{ return(adapter.dispatch('iso_year', 'vitrina')(day)) }}
{%- endmacro %}

{% macro default__iso_year(day) -%}
    {{ return(not_implemented('iso_year')) }}
{%- endmacro %}

{% macro postgres__iso_year(day) -%}
    cast(extract(isoyear from {{ day }}) as integer)
{%- endmacro %}

{% macro clickhouse__iso_year(day) -%}
    toInt32(toISOYear({{ day }}))
{%- endmacro %}
