{#- Step: one row a day `ds`, from the first ISO text to the last, both included. -#}
{% macro days_between(first, last) -%}
    {{ return(adapter.dispatch('days_between', 'vitrina')(first, last)) }}
{%- endmacro %}

{% macro default__days_between(first, last) -%}
    {{ return(not_implemented('days_between')) }}
{%- endmacro %}

{% macro postgres__days_between(first, last) -%}
    select cast({{ day_literal(first) }} + day_no as date) as ds
    from generate_series(0, {{ day_literal(last) }} - {{ day_literal(first) }}) as day_no
{%- endmacro %}

{% macro clickhouse__days_between(first, last) -%}
    select addDays({{ day_literal(first) }}, number) as ds
    from numbers({{ (parse_day(last) - parse_day(first)).days + 1 }})
{%- endmacro %}
