{#- Expression: a text as a sort key by its UTF-8 bytes, whatever the database's collation. -#}
{% macro text_order(expression) -%}
    {{ return(adapter.dispatch('text_order', 'vitrina')(expression)) }}
{%- endmacro %}

{% macro default__text_order(expression) -%}
    {{ return(not_implemented('text_order')) }}
{%- endmacro %}

{% macro postgres__text_order(expression) -%}
    {{ expression }} collate "C"
{%- endmacro %}

{#- Texts are bytes. -#}
{% macro clickhouse__text_order(expression) -%}
    {{ expression }}
{%- endmacro %}
