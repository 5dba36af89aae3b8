{#- The schemas of DESIGN.md section 3: a model's is the folder that it lies in (staging, ods, core,
    marts). A target with a schema of its own (a developer's) gets copies of them with that as a
    prefix: `alice_ods`. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set name = custom_schema_name or (node.fqn[1] if node.resource_type == 'model' and node.fqn | length > 2 else none) -%}
    {%- if not name -%}
        {{ target.schema }}
    {%- elif target.schema == 'marts' -%}
        {{ name | trim }}
    {%- else -%}
        {{ target.schema }}_{{ name | trim }}
    {%- endif -%}
{%- endmacro %}
