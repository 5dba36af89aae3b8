{#- Expression: the Monday of the ISO week that holds a date; of no time zone. -#}
{% macro week_start(day) -%}
    {{ return(adapter.dispatch('week_start', 'vitrina')(day)) }}
{%- endmacro %}

{% macro default__week_start(day) -%}
    {{ return(not_implemented('week_start')) }}
{%- endmacro %}

{#- As a timestamp without a zone: of a date alone PostgreSQL makes an instant of the session's zone. -#}
{% macro postgres__week_start(day) -%}
    cast(date_trunc('week', cast({{ day }} as timestamp)) as date)
{%- endmacro %}

{#- Of all years by `enable_extended_results_for_datetime_functions`, which profiles.yml sets. -#}
{% macro clickhouse__week_start(day) -%}
    toMonday({{ day }})
{%- endmacro %}
