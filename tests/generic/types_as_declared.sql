{#- Each column has the type that the yml declares, in the engine's words. For engines on which dbt can
    not enforce a contract; a column that is not there has no type. -#}
{% test types_as_declared(model) %}

{%- set differences = differing_types() -%}
{%- if not differences %}
select 1 as difference
where 1 = 0
{%- endif %}
{%- for column, declared, found in differences %}
select
    '{{ column }}' as column_name,
    '{{ declared | replace("'", "''") }}' as declared_type,
    '{{ found | replace("'", "''") }}' as found_type
{{ 'union all' if not loop.last }}
{%- endfor %}

{% endtest %}
