{#-
    How PostgreSQL replaces days, periods, keys or whole tables: docs/decisions/0002-materialization.md.

    Overrides dbt's `incremental` so that contracts, grants, persist_docs, on_schema_change,
    --full-refresh and is_incremental() work as everywhere. All of it is one transaction, under a
    lock a table: a crash leaves the old rows, two runs wait for each other. Readers are locked out
    only from the swap to the commit.

    No ANALYZE in it: it costs a fifth of a day's mart and changed no plan of ours (leaves are sized by
    their files until autovacuum looks at them).
-#}
{% materialization incremental, adapter='postgres' %}

    {%- set unit = replacement_unit() -%}
    {%- set days = window_days() -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set on_schema_change = incremental_validate_on_schema_change(
        config.get('on_schema_change'), default='fail') -%}
    {%- set grant_config = config.get('grants') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {% do postgres__lock_relation(target_relation) %}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {#- Looked up under the lock: another run may have made it since dbt filled its cache. -#}
    {%- set kind = postgres__relation_kind(target_relation) -%}
    {%- set is_other_kind = kind is not none and kind != ('p' if unit == 'day' else 'r') -%}
    {%- set rebuilt = kind is none or is_other_kind or should_full_refresh() -%}
    {%- if is_other_kind and unit != 'whole' and days is not none -%}
        {% do exceptions.raise_compiler_error(
            target_relation ~ ' is not what meta.unit ' ~ unit ~ ' asks for, and a window would lose the rows '
            ~ 'outside it: run once with --full-refresh or without a window') %}
    {%- endif -%}

    {%- set shape = postgres__create_shape(target_relation, sql) -%}
    {%- if rebuilt -%}
        {%- set base = postgres__create_base(target_relation, shape, partitioned=(unit == 'day')) -%}
        {%- set columns = adapter.get_columns_in_relation(base) -%}
    {%- else -%}
        {%- set base = target_relation -%}
        {% do adapter.expand_target_column_types(from_relation=shape, to_relation=base) %}
        {%- set columns = process_schema_changes(on_schema_change, shape, base)
            or adapter.get_columns_in_relation(base) -%}
    {%- endif -%}
    {%- set column_names = columns | map(attribute='quoted') | join(', ') -%}

    {%- set rows = '(' ~ sql ~ ')' -%}
    {%- if (unit == 'day' and days is none) or (unit in ['period', 'key'] and days is not none)
            or (unit == 'whole' and (config.get('meta') or {}).get('reads_itself') and not rebuilt) -%}
        {#- What to make room for is known, or has to be checked, from the rows; or they are made of
            the old ones. -#}
        {%- set rows = postgres__create_rows(target_relation, sql) -%}
    {%- endif -%}
    {%- if unit == 'day' -%}
        {%- set filled = postgres__create_stage(
            target_relation, base, postgres__days_of(rows) if days is none else days) -%}
    {%- else -%}
        {%- set filled = base -%}
        {% if unit == 'period' %}{% do postgres__refuse_other_periods(rows) %}{% endif %}
        {% if not rebuilt %}{% do postgres__delete_unit(base, unit, rows) %}{% endif %}
    {%- endif -%}

    {% call statement('main') -%}
        insert into {{ filled }} ({{ column_names }})
        select {{ column_names }}
        from {{ rows }} as model_rows
    {%- endcall %}

    {% if unit == 'day' %}
        {#- While nobody waits: an attachment takes over the indexes that a leaf has. -#}
        {% do create_indexes(filled) %}
    {% endif %}
    {% if rebuilt %}
        {% do create_indexes(base) %}
        {% do postgres__put_in_place(target_relation, base, kind) %}
    {% endif %}
    {% do apply_grants(target_relation, grant_config, should_revoke=should_revoke(kind, full_refresh_mode=rebuilt)) %}
    {% do persist_docs(target_relation, model) %}
    {% if unit == 'day' %}
        {% do postgres__swap_days(target_relation, filled, all_days=(days is none)) %}
    {% endif %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target_relation]}) }}

{% endmaterialization %}


{#- Begin the transaction, wait for whoever builds the same relation, and run the model's sql_header. -#}
{% macro postgres__lock_relation(relation) %}
    {%- set key = "hashtextextended('vitrina model " ~ relation ~ "', 0)" -%}
    {% call statement('begin', auto_begin=True) -%}
        -- Under a stricter isolation a run that waited would not see what it waited for.
        set transaction isolation level read committed;
        -- What a killed run left at work here ends by itself, and with it its lock.
        set local client_connection_check_interval = '1s'
    {%- endcall %}
    {%- if not run_query('select pg_try_advisory_xact_lock(' ~ key ~ ')').columns[0].values()[0] -%}
        {% do log('waiting for another run of ' ~ relation, info=true) %}
        {% do run_query('select pg_advisory_xact_lock(' ~ key ~ ')') %}
    {%- endif -%}
    {%- if config.get('sql_header') -%}
        {% call statement('sql_header') %}{{ config.get('sql_header') }}{% endcall %}
    {%- endif -%}
{% endmacro %}


{#- pg_class.relkind: r table, p partitioned table, v view, m materialized view; none if there is none. -#}
{% macro postgres__relation_kind(relation) %}
    {%- set found = run_query("select relkind from pg_class where oid = to_regclass('" ~ relation ~ "')") -%}
    {{ return(found.columns[0].values()[0] if found.rows else none) }}
{% endmacro %}


{#- A statement that drops a relation of this kind; nothing if there is none. -#}
{% macro postgres__drop_kind(relation, kind) -%}
    {%- if kind -%}
        drop {{ {'v': 'view', 'm': 'materialized view'}.get(kind, 'table') }} {{ relation }} cascade;
    {%- endif -%}
{%- endmacro %}


{#- A name derived from the relation's, cut so that PostgreSQL does not cut it. -#}
{% macro postgres__derived_name(relation, suffix) %}
    {%- set name = relation.identifier -%}
    {%- set room = 63 - suffix | length -%}
    {%- if name | length > room -%}
        {%- set name = name[:room - 9] ~ '_' ~ local_md5(name)[:8] -%}
    {%- endif -%}
    {{ return(name ~ suffix) }}
{% endmacro %}


{#- A temporary table without rows that has the query's columns. The query is analysed, not run. -#}
{% macro postgres__create_shape(relation, sql) %}
    {%- set shape = api.Relation.create(
        identifier=postgres__derived_name(relation, '__shape'), type='table') -%}
    {% call statement('create_shape') -%}
        {% if config.get('contract').enforced -%}
            {{ get_assert_columns_equivalent(sql) }}
        {%- endif %}
        create temporary table {{ shape }} on commit drop as ({{ sql }}) with no data
    {%- endcall %}
    {{ return(shape) }}
{% endmacro %}


{#- The new table of a rebuild, beside the old one until it is put in its place. -#}
{% macro postgres__create_base(relation, shape, partitioned) %}
    {%- set types = {} -%}
    {%- for column in adapter.get_columns_in_relation(shape) -%}
        {% do types.update({column.name: column.data_type}) %}
    {%- endfor -%}
    {%- if partitioned and types.get('ds') != 'date' -%}
        {% do exceptions.raise_compiler_error(
            'meta.unit day asks for a column ds of type date, not ' ~ types.get('ds', 'a model without ds')) %}
    {%- endif -%}
    {%- set base = relation.incorporate(
        path={'identifier': postgres__derived_name(relation, '__new')}) -%}
    {% call statement('create_base') -%}
        create table {{ base }}
        {% if config.get('contract').enforced -%}
            {{ get_table_columns_and_constraints() }}
        {%- else -%}
            (like {{ shape }})
        {%- endif %}
        {{ 'partition by list (ds)' if partitioned }}
    {%- endcall %}
    {{ return(base) }}
{% endmacro %}


{% macro postgres__put_in_place(relation, base, kind) %}
    {% call statement('put_in_place') -%}
        {{ postgres__drop_kind(relation, kind) }}
        alter table {{ base }} rename to {{ adapter.quote(relation.identifier) }}
    {%- endcall %}
{% endmacro %}


{% macro postgres__create_rows(relation, sql) %}
    {%- set rows = api.Relation.create(
        identifier=postgres__derived_name(relation, '__rows'), type='table') -%}
    {% call statement('create_rows') -%}
        create temporary table {{ rows }} on commit drop as ({{ sql }})
    {%- endcall %}
    {{ return(rows) }}
{% endmacro %}


{#- Periods have no leaves to miss: a row of one that is not replaced would be there twice. -#}
{% macro postgres__refuse_other_periods(rows) %}
    {%- set others = run_query(
        'select period_name, period_id from ' ~ rows ~ ' as model_rows where (' ~ in_window_periods()
        ~ ') is not true limit 1').rows if window_periods() is not none -%}
    {%- if others -%}
        {% do exceptions.raise_compiler_error(
            'the model returned a row of a period outside the window: ' ~ others[0].values() | join(', ')) %}
    {%- endif -%}
{% endmacro %}


{#- Empty what the model's rows are about to fill. Their keys go as well as the touched ones: a load
    may have touched more of them since the rows were computed, or before. -#}
{% macro postgres__delete_unit(relation, unit, rows) %}
    {% call statement('delete_unit') -%}
        delete from {{ relation }}
        {% if unit == 'period' -%}
            where {{ in_window_periods() }}
        {%- elif unit == 'key' and window_days() is not none -%}
            {%- set keys = config.require('unique_key') -%}
            {%- set keys = keys if keys is string else keys | join(', ') -%}
            where
                ({{ keys }}) in ({{ render(config.get('meta').touched_keys) }})
                or ({{ keys }}) in (select {{ keys }} from {{ rows }})
        {%- endif %}
    {%- endcall %}
{% endmacro %}


{% macro postgres__days_of(rows) %}
    {%- set days = run_query('select distinct ds from ' ~ rows ~ ' order by ds').columns[0].values() -%}
    {%- if none in days -%}
        {% do exceptions.raise_compiler_error('the model returned rows without a ds') %}
    {%- endif -%}
    {{ return(days | map('string') | list) }}
{% endmacro %}


{#- A partitioned table with a leaf for each day, which the rows are routed to: a row of a day that
    is not in the window has no leaf, and fails the run. -#}
{% macro postgres__create_stage(relation, base, days) %}
    {%- set stage = relation.incorporate(path={
        'schema': relation.schema ~ '_days', 'identifier': postgres__derived_name(relation, '__stage')}) -%}
    {#- The leaves of a schema's tables live beside it: thousands of them would hide the tables. -#}
    {% do create_schema(stage) %}
    {% call statement('create_stage') -%}
        create table {{ stage }} (like {{ base }} including constraints) partition by list (ds);
        {%- for day in days %}
            {%- set leaf = stage.incorporate(
                path={'identifier': postgres__derived_name(relation, '_' ~ day | replace('-', '') ~ '__new')}) %}
            {#- The check spares the attachment a scan. #}
            create table {{ leaf }} partition of {{ stage }} (constraint ds_is check (ds = '{{ day }}'))
            for values in ('{{ day }}');
        {%- endfor %}
    {%- endcall %}
    {{ return(stage) }}
{% endmacro %}


{#- Put each leaf of the stage in the place of the day's old one; days without rows have no leaf. -#}
{% macro postgres__swap_days(relation, stage, all_days) %}
    {% call statement('swap_days') -%}
        do $swap$
        declare
            leaf record;
            is_filled boolean;
        begin
            for leaf in
                select child.oid::regclass as name
                from pg_inherits
                join pg_class as child on child.oid = inhrelid
                where
                    inhparent = '{{ relation }}'::regclass
                    and (
                        {{ all_days }}
                        or pg_get_expr(child.relpartbound, child.oid) in (
                            select pg_get_expr(new.relpartbound, new.oid)
                            from pg_inherits
                            join pg_class as new on new.oid = inhrelid
                            where inhparent = '{{ stage }}'::regclass
                        )
                    )
            loop
                execute format('drop table %s', leaf.name);
            end loop;
            for leaf in
                select
                    child.oid::regclass as name,
                    left(child.relname, -length('__new')) as final_name,
                    pg_get_expr(child.relpartbound, child.oid) as bound
                from pg_inherits
                join pg_class as child on child.oid = inhrelid
                where inhparent = '{{ stage }}'::regclass
            loop
                execute format('select exists (select from %s)', leaf.name) into is_filled;
                if is_filled then
                    execute format('alter table {{ stage }} detach partition %s', leaf.name);
                    execute format('alter table %s rename to %I', leaf.name, leaf.final_name);
                    execute format(
                        'alter table {{ relation }} attach partition %I.%I %s',
                        '{{ stage.schema }}', leaf.final_name, leaf.bound
                    );
                end if;
            end loop;
            drop table {{ stage }};
        end
        $swap$
    {%- endcall %}
{% endmacro %}
