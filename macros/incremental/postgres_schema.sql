{#-
    Schemas that two runs can make at once: IF NOT EXISTS alone looks before it waits, and asks for
    the right to create even where there is nothing to be made.
-#}
{% macro postgres__create_schema(relation) %}
    {%- if relation.database -%}
        {% do adapter.verify_database(relation.database) %}
    {%- endif -%}
    {#- Begins a transaction, which dbt commits whatever there was to make. -#}
    {% call statement('schema_there', fetch_result=True) -%}
        select nspname from pg_namespace where nspname = '{{ relation.schema }}'
    {%- endcall %}
    {%- if not load_result('schema_there').table.rows -%}
        {% call statement('create_schema') -%}
            select pg_advisory_xact_lock(hashtextextended('vitrina schema {{ relation.schema }}', 0));
            create schema if not exists {{ adapter.quote(relation.schema) }}
        {%- endcall %}
    {%- endif -%}
{% endmacro %}
