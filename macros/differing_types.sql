{#- Column, declared and found type where they differ, of the model that the test is attached to. -#}
{% macro differing_types() %}
    {%- set found, differences = {}, [] -%}
    {%- if execute -%}
        {%- set node = graph.nodes[model.attached_node] -%}
        {%- set relation = api.Relation.create(
            database=node.database, schema=node.schema, identifier=node.alias, type='table') -%}
        {%- for column in adapter.get_columns_in_relation(relation) -%}
            {% do found.update({column.name: stored_type(column)}) %}
        {%- endfor -%}
        {%- for column in node.columns.values() if column.data_type -%}
            {%- set declared = engine_type(column.data_type) -%}
            {%- if found.get(column.name) != declared -%}
                {% do differences.append((column.name, declared, found.get(column.name, 'none'))) %}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(differences) }}
{% endmacro %}
