{#-
    Views mean the same to whoever reads them: a client that joins without `join_use_nulls` would
    read 0, '' and 1970-01-01 for what is not there. They carry the settings of profiles.yml.
-#}
{% macro clickhouse__create_view_as(relation, sql) -%}
    create or replace view {{ relation.include(database=False) }} {{ on_cluster_clause(relation) }} as (
        select * from (
            {{ sql }}
        ) as model_rows
        settings
        {%- for name, value in target.custom_settings.items() %}
            {{ name }} = {{ value if value is number else "'" ~ value ~ "'" }}{{ ',' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}
