{#- Expression: a date from an ISO text, as a constant that prunes partitions. -#}
{% macro day_literal(day) -%}
    {{ return(adapter.dispatch('day_literal', 'vitrina')(day)) }}
{%- endmacro %}

{% macro default__day_literal(day) -%}
    {{ return(not_implemented('day_literal')) }}
{%- endmacro %}

{% macro postgres__day_literal(day) -%}
    date '{{ day }}'
{%- endmacro %}

{% macro clickhouse__day_literal(day) -%}
    toDate32('{{ day }}')
{%- endmacro %}
