{#- Expression: a date so many days later (earlier, if negative). -#}
{% macro days_later(date, by) -%}
    {{ return(adapter.dispatch('days_later', 'vitrina')(date, by)) }}
{%- endmacro %}

{% macro default__days_later(date, by) -%}
    {{ return(not_implemented('days_later')) }}
{%- endmacro %}

{% macro postgres__days_later(date, by) -%}
    ({{ date }} + {{ by }})
{%- endmacro %}

{% macro clickhouse__days_later(date, by) -%}
    addDays({{ date }}, {{ by }})
{%- endmacro %}
