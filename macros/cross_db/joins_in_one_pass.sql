{#- Statement, for a model's sql_header: each side of a join is read once, hashed or sorted. A day that
    has just landed has no statistics, and what PostgreSQL takes for a single row it would join row by
    row: fifty thousand times fifty thousand. -#}
{% macro joins_in_one_pass() -%}
    {{ return(adapter.dispatch('joins_in_one_pass', 'vitrina')()) }}
{%- endmacro %}

{% macro default__joins_in_one_pass() -%}
    {{ return(not_implemented('joins_in_one_pass')) }}
{%- endmacro %}

{% macro postgres__joins_in_one_pass() -%}
    set local enable_nestloop = off;
{%- endmacro %}

{#- It has no other way. -#}
{% macro clickhouse__joins_in_one_pass() -%}
    {{ return('') }}
{%- endmacro %}
