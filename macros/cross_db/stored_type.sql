{#- Name: the type of a column of the catalogue, as engine_type() names it: without what an engine
    wraps it in for nulls, or for a dictionary of few values. -#}
{% macro stored_type(column) -%}
    {{ return(adapter.dispatch('stored_type', 'vitrina')(column)) }}
{%- endmacro %}

{% macro default__stored_type(column) -%}
    {{ return(not_implemented('stored_type')) }}
{%- endmacro %}

{% macro postgres__stored_type(column) -%}
    {{ return(column.data_type) }}
{%- endmacro %}

{% macro clickhouse__stored_type(column) -%}
    {{ return(column.dtype) }}
{%- endmacro %}
