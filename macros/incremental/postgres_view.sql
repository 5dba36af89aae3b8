{#-
    Views that two runs can make at once. dbt's own renames the old one away and drops it after the
    commit, with what depends on it: another run finds a name taken or a view gone. Here it is
    replaced in one transaction, under a lock, and in place unless its columns changed.
-#}
{% materialization view, adapter='postgres' %}

    {%- set target_relation = this.incorporate(type='view') -%}
    {%- set grant_config = config.get('grants') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {% do postgres__lock_relation(target_relation) %}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set kind = postgres__relation_kind(target_relation) -%}
    {%- set shape = postgres__create_shape(target_relation, sql) -%}
    {%- set keeps = kind == 'v' and postgres__begins_with(shape, target_relation) -%}

    {% call statement('main') -%}
        {% if not keeps %}{{ postgres__drop_kind(target_relation, kind) }}{% endif %}
        create or replace view {{ target_relation }} as (
            {{ sql }}
        )
    {%- endcall %}

    {% do apply_grants(target_relation, grant_config, should_revoke=should_revoke(kind, full_refresh_mode=not keeps)) %}
    {% do persist_docs(target_relation, model) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{#- Whether the first columns of a relation are those of a view: what PostgreSQL asks of whatever
    replaces it in place. -#}
{% macro postgres__begins_with(relation, view) %}
    {%- set columns = 'select attnum, attname, atttypid, atttypmod, attcollation from pg_attribute where attnum > 0' -%}
    {%- set missing = run_query(
        columns ~ " and attrelid = '" ~ view ~ "'::regclass except "
        ~ columns ~ " and attrelid = '" ~ relation ~ "'::regclass") -%}
    {{ return(missing.rows | length == 0) }}
{% endmacro %}
