{#-
    How ClickHouse replaces days, periods, keys or whole tables: docs/decisions/0002-materialization.md.

    Overrides dbt's `incremental` with the contract of PostgreSQL's (postgres.sql). There are no
    transactions and no locks: the rows go to a side table, and one statement at the end puts them in
    their place (REPLACE PARTITION a day, EXCHANGE TABLES for the rest). A run that was killed leaves
    the old rows, or some days old and some new, each whole; the next one does all of it again. A run
    that begins while another builds the same table takes over: it drops the other's side table, and
    the other one fails at its next step, before it could put older rows over newer ones.
-#}
{% materialization incremental, adapter='clickhouse' %}

    {%- set unit = replacement_unit() -%}
    {%- set days = window_days() -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set on_schema_change = incremental_validate_on_schema_change(
        config.get('on_schema_change'), default='fail') -%}
    {%- set grant_config = config.get('grants') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% do clickhouse__header() %}

    {%- set side = clickhouse__begin(target_relation) -%}
    {#- Looked up after the other run was stopped. -#}
    {%- set existing = clickhouse__existing(target_relation) -%}
    {%- set partition_key = 'ds' if unit == 'day' else '' -%}
    {%- set is_other_kind = existing is not none and existing.partition_key != partition_key -%}
    {%- set rebuilt = existing is none or is_other_kind or should_full_refresh() -%}
    {%- if is_other_kind and unit != 'whole' and days is not none -%}
        {% do exceptions.raise_compiler_error(
            target_relation ~ ' is not what meta.unit ' ~ unit ~ ' asks for, and a window would lose the rows '
            ~ 'outside it: run once with --full-refresh or without a window') %}
    {%- endif -%}

    {%- set columns = clickhouse__columns_of(sql, unit) -%}
    {%- set filled_columns = columns -%}
    {%- if not rebuilt -%}
        {% do clickhouse__change_columns(target_relation, columns, on_schema_change) %}
        {%- set there = adapter.get_columns_in_relation(target_relation) -%}
        {%- set filled_columns = there if on_schema_change == 'ignore' else columns -%}
        {%- set keeps_structure = on_schema_change in ['ignore', 'append_new_columns']
            or (days is not none and unit != 'whole') -%}
    {%- endif -%}
    {%- if rebuilt or not keeps_structure -%}
        {% do clickhouse__create_table(side, columns, partition_key, clickhouse__sort_key(columns, unit)) %}
    {%- else -%}
        {% do clickhouse__create_table(side, there, partition_key, existing.sorting_key) %}
    {%- endif -%}
    {%- set column_names = filled_columns | map(attribute='quoted') | join(', ') -%}

    {% call statement('main') -%}
        insert into {{ side }} ({{ column_names }})
        select {{ column_names }}
        from (
            {{ sql }}
        ) as model_rows
        {{ clickhouse__insert_settings() }}
    {%- endcall %}

    {%- if unit == 'day' and days is not none -%}
        {% do clickhouse__refuse_other_days(side, days) %}
    {%- elif unit == 'period' -%}
        {% do clickhouse__refuse_other_periods(side) %}
    {%- endif -%}
    {%- if not rebuilt and days is not none and unit in ['period', 'key'] -%}
        {% do clickhouse__keep_the_rest(side, target_relation, unit) %}
    {%- endif -%}

    {% do clickhouse__check_still_ours(target_relation, side) %}
    {%- if not rebuilt and unit == 'day' and days is not none -%}
        {% do clickhouse__replace_days(target_relation, side, days) %}
    {%- else -%}
        {% do clickhouse__put_in_place(target_relation, side, existing) %}
    {%- endif -%}
    {% do clickhouse__drop_table(side) %}

    {% do apply_grants(target_relation, grant_config, should_revoke=should_revoke(existing, full_refresh_mode=rebuilt)) %}
    {% do persist_docs(target_relation, model) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{#- Run the model's sql_header, for the session. -#}
{% macro clickhouse__header() %}
    {%- if config.get('sql_header') and config.get('sql_header') | trim -%}
        {% call statement('sql_header') %}{{ config.get('sql_header') }}{% endcall %}
    {%- endif -%}
{% endmacro %}


{#- Take over from whoever builds the same table, and from killed runs; returns the name of a side
    table of our own. Names are in the order of the server's clock; of two that begin at once the
    greater goes on and the other one gives way. -#}
{% macro clickhouse__begin(relation) %}
    {%- set prefix = relation.identifier ~ '__new_' -%}
    {%- set clock = run_query("select formatDateTime(now64(6, 'UTC'), '%Y%m%d%H%i%S%f')").columns[0].values()[0] -%}
    {%- set side = relation.incorporate(
        path={'identifier': prefix ~ clock ~ '_' ~ invocation_id.replace('-', '')[:8]}) -%}
    {#- What says that we are at work: the table itself follows when its columns are known. -#}
    {%- set mark = side.incorporate(path={'identifier': side.identifier ~ '_begun'}) -%}
    {% call statement('begin') -%}
        create table {{ mark }} {{ on_cluster_clause(relation) }} (begun UInt8) engine = Memory
    {%- endcall %}
    {%- for name in clickhouse__side_tables(relation) if not name.startswith(side.identifier) -%}
        {%- if name > side.identifier -%}
            {% do clickhouse__drop_one(mark) %}
            {% do exceptions.raise_compiler_error(clickhouse__taken_over(relation)) %}
        {%- endif -%}
        {% do clickhouse__stop(relation.incorporate(path={'identifier': name})) %}
    {%- endfor -%}
    {{ return(side) }}
{% endmacro %}


{#- The side tables of all runs of a model, sorted. Names of others that begin alike differ in length. -#}
{% macro clickhouse__side_tables(relation) %}
    {%- set found = run_query(
        "select name from system.tables where database = '" ~ relation.schema ~ "' and startsWith(name, '"
        ~ relation.identifier ~ "__new_') and match(substring(name, " ~ (relation.identifier | length + 7)
        ~ "), '^[0-9]{20}_[0-9a-f]{8}(_|$)') order by name") -%}
    {{ return(found.columns[0].values() | list if found.rows else []) }}
{% endmacro %}


{% macro clickhouse__taken_over(relation) -%}
    {{ return('another run of ' ~ relation ~ ' began after this one and took over: run this one again') }}
{%- endmacro %}


{#- Stop another run: end what it is at, and drop its table once nothing uses it any more. -#}
{% macro clickhouse__stop(side) %}
    {% do log('taking over from another run: ' ~ side, info=true) %}
    {% do run_query(
        "kill query where user = currentUser() and query_id <> queryID() and position(query, '"
        ~ side.identifier ~ "') > 0 sync") %}
    {% do clickhouse__drop_one(side) %}
{% endmacro %}


{% macro clickhouse__check_still_ours(relation, side) %}
    {%- set names = clickhouse__side_tables(relation) -%}
    {%- if side.identifier ~ '_begun' not in names or not names[-1].startswith(side.identifier) -%}
        {% do exceptions.raise_compiler_error(clickhouse__taken_over(relation)) %}
    {%- endif -%}
{% endmacro %}


{#- What is there under the model's name: its engine and keys; none if there is nothing. -#}
{% macro clickhouse__existing(relation) %}
    {%- set stored = clickhouse__stored(relation) -%}
    {%- set found = run_query(
        "select engine, partition_key, sorting_key from system.tables where database = '"
        ~ stored.schema ~ "' and name = '" ~ stored.identifier ~ "'") -%}
    {%- if not found.rows -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set row = found.rows[0] -%}
    {%- set is_ours = row['engine'].endswith('MergeTree') -%}
    {{ return({
        'engine': row['engine'],
        'partition_key': row['partition_key'] if is_ours else 'of another kind',
        'sorting_key': row['sorting_key'],
        'is_view': not is_ours,
    }) }}
{% endmacro %}


{#- A row of a day that is not in the window would be dropped with the side table, without a word. -#}
{% macro clickhouse__refuse_other_days(side, days) %}
    {%- set others = run_query(
        'select ds from ' ~ side ~ ' where not (' ~ in_days('ds', days) ~ ') order by ds limit 1').rows -%}
    {%- if others -%}
        {% do clickhouse__drop_table(side) %}
        {% do exceptions.raise_compiler_error(
            'the model returned a row of a day outside the window, no partition of it is replaced: ' ~ others[0][0]) %}
    {%- endif -%}
{% endmacro %}


{#- A row of a period that is not replaced would be there twice. -#}
{% macro clickhouse__refuse_other_periods(side) %}
    {%- set others = run_query(
        'select period_name, period_id from ' ~ side ~ ' where not ifNull(' ~ in_window_periods()
        ~ ', 0) limit 1').rows if window_periods() is not none -%}
    {%- if others -%}
        {% do clickhouse__drop_table(side) %}
        {% do exceptions.raise_compiler_error(
            'the model returned a row of a period outside the window: ' ~ others[0].values() | join(', ')) %}
    {%- endif -%}
{% endmacro %}


{#- Add the rows that this run does not replace: all of other periods; all of other keys than the
    touched and the computed ones, for a load may have touched more of them in between. -#}
{% macro clickhouse__keep_the_rest(side, relation, unit) %}
    {%- set names = adapter.get_columns_in_relation(relation) | map(attribute='quoted') | join(', ') -%}
    {% call statement('keep_the_rest') -%}
        insert into {{ side }} ({{ names }})
        select {{ names }}
        from {{ relation }}
        {% if unit == 'period' -%}
            where not ifNull({{ in_window_periods() }}, 0)
        {%- else -%}
            {%- set keys = config.require('unique_key') -%}
            {%- set keys = keys if keys is string else keys | join(', ') -%}
            where
                ({{ keys }}) not in ({{ render(config.get('meta').touched_keys) }})
                and ({{ keys }}) not in (select {{ keys }} from {{ side }})
        {%- endif %}
        {{ clickhouse__insert_settings() }}, transform_null_in = 1
    {%- endcall %}
{% endmacro %}


{#- Each day of the window becomes what the side table has of it, a day that it has not is emptied. -#}
{% macro clickhouse__replace_days(relation, side, days) %}
    {%- if days -%}
        {% do clickhouse__sync_replicas(side) %}
        {#- Each day is replaced by itself, and a statement may only be so long. -#}
        {%- for some in days | batch(200) %}
        {% call statement('replace_days') -%}
            alter table {{ clickhouse__stored(relation) }} {{ on_cluster_clause(relation) }}
            {%- for day in some %}
                replace partition '{{ day }}' from {{ clickhouse__stored(side) }}{{ ',' if not loop.last }}
            {%- endfor %}
            {{ clickhouse__replace_settings() }}
        {%- endcall %}
        {%- endfor %}
        {% do clickhouse__sync_replicas(relation) %}
    {%- endif -%}
{% endmacro %}


{#- The side table takes the place of what has the model's name, which takes the side table's. -#}
{% macro clickhouse__put_in_place(relation, side, existing) %}
    {%- set stored, stored_side = clickhouse__stored(relation), clickhouse__stored(side) -%}
    {% do clickhouse__sync_replicas(side) %}
    {% call statement('put_in_place') -%}
        {% if existing is none -%}
            rename table {{ stored_side }} to {{ stored }} {{ on_cluster_clause(relation) }}
        {%- else -%}
            exchange tables {{ stored_side }} and {{ stored }} {{ on_cluster_clause(relation) }}
        {%- endif %}
    {%- endcall %}
    {% do clickhouse__distribute(relation, stored) %}
{% endmacro %}
