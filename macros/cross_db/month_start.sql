{#- Expression: the first day of the month that holds a date; of no time zone. -#}
{% macro month_start(day) -%}
    {{ return(adapter.dispatch('month_start', 'vitrina')(day)) }}
{%- endmacro %}

{% macro default__month_start(day) -%}
    {{ return(not_implemented('month_start')) }}
{%- endmacro %}

{#- As a timestamp without a zone: of a date alone PostgreSQL makes an instant of the session's zone. -#}
{% macro postgres__month_start(day) -%}
    cast(date_trunc('month', cast({{ day }} as timestamp)) as date)
{%- endmacro %}

{#- Of all years by `enable_extended_results_for_datetime_functions`, which profiles.yml sets. -#}
{% macro clickhouse__month_start(day) -%}
    toStartOfMonth({{ day }})
{%- endmacro %}
