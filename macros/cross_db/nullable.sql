{#- Expression: the same value in a type that has null. For functions that answer "there is none" with
    a null on one engine and with the type's 0 on another, as lead() does. -#}
{% macro nullable(expression) -%}
    {{ return(adapter.dispatch('nullable', 'vitrina')(expression)) }}
{%- endmacro %}

{% macro default__nullable(expression) -%}
    {{ return(not_implemented('nullable')) }}
{%- endmacro %}

{% macro postgres__nullable(expression) -%}
    {{ expression }}
{%- endmacro %}

{% macro clickhouse__nullable(expression) -%}
    toNullable({{ expression }})
{%- endmacro %}
