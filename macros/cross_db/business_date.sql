{#- Expression: the business day in which an instant lies. -#}
{% macro business_date(instant) -%}
    {{ return(adapter.dispatch('business_date', 'vitrina')(instant)) }}
{%- endmacro %}

{% macro default__business_date(instant) -%}
    {{ return(not_implemented('business_date')) }}
{%- endmacro %}

{% macro postgres__business_date(instant) -%}
    cast({{ instant }} at time zone '{{ business_timezone() }}' as date)
{%- endmacro %}

{% macro clickhouse__business_date(instant) -%}
    toDate32({{ instant }}, '{{ business_timezone() }}')
{%- endmacro %}
