{#-
    Tables of ClickHouse: their columns, keys and engines, on one server or on a cluster.

    On a cluster (CLICKHOUSE_CLUSTER) a table of a model is two: `name_local`, replicated, on every
    server, and `name`, distributed over them, which is what everybody reads and writes.
-#}

{#- The relation in which a model's rows are stored. -#}
{% macro clickhouse__stored(relation) %}
    {%- if adapter.get_clickhouse_cluster_name() is none -%}
        {{ return(relation) }}
    {%- endif -%}
    {{ return(relation.incorporate(path={'identifier': relation.identifier ~ '_local'})) }}
{% endmacro %}


{#- Columns as a model's table has them: names and order from its query, types from what its yml
    declares, from the query where that says nothing. -#}
{% macro clickhouse__columns_of(sql, unit) %}
    {%- set columns, filled = [], clickhouse__filled_columns() -%}
    {%- for row in run_query('describe table (\n' ~ sql ~ '\n)').rows -%}
        {%- set found = api.Column.create(row['name'], row['type']) -%}
        {%- set yml = model.columns.get(row['name'], {}) -%}
        {%- set type, is_nullable = found.dtype, found.is_nullable -%}
        {%- if yml.get('data_type') -%}
            {%- set type, is_nullable = engine_type(yml['data_type']), true -%}
            {% do clickhouse__check_type(found, type) %}
        {%- endif -%}
        {%- if unit == 'day' and row['name'] == 'ds' -%}
            {% do clickhouse__check_type(found, 'Date32') %}
            {%- set type, is_nullable = 'Date32', false -%}
        {%- endif -%}
        {%- if row['name'] in filled -%}
            {%- set is_nullable = false -%}
        {%- endif -%}
        {%- set is_low_cardinality = found.is_low_cardinality or yml.get('meta', {}).get('low_cardinality', false) -%}
        {%- set type = 'Nullable(' ~ type ~ ')' if is_nullable else type -%}
        {% do columns.append(api.Column.create(
            row['name'], 'LowCardinality(' ~ type ~ ')' if is_low_cardinality else type)) %}
    {%- endfor -%}
    {%- if unit == 'day' and 'ds' not in columns | map(attribute='name') -%}
        {% do exceptions.raise_compiler_error(
            'meta.unit day asks for a column ds of type date, not a model without ds') %}
    {%- endif -%}
    {{ return(columns) }}
{% endmacro %}


{#- Refuses a column whose values ClickHouse would convert to the wanted type without a word: an
    insert truncates decimals and wraps integers. -#}
{% macro clickhouse__check_type(column, wanted) %}
    {%- if column.dtype != 'Nothing' and clickhouse__family(column.dtype) != clickhouse__family(wanted) -%}
        {%- if column.name == 'ds' and wanted == 'Date32' -%}
            {% do exceptions.raise_compiler_error(
                'meta.unit day asks for a column ds of type date, not ' ~ column.dtype) %}
        {%- endif -%}
        {% do exceptions.raise_compiler_error(
            'the contract of ' ~ this ~ ' wants ' ~ column.name ~ ' as ' ~ wanted ~ ', its query gives '
            ~ column.dtype ~ ': cast it') %}
    {%- endif -%}
{% endmacro %}


{#- Types of one family hold the same values, up to their range. -#}
{% macro clickhouse__family(type) %}
    {%- set name = type.split('(')[0] -%}
    {%- if name.startswith('Int') or name.startswith('UInt') -%}
        {{ return('integer') }}
    {%- elif name == 'Decimal' -%}
        {{ return('decimal with ' ~ type.split(',')[1].strip(' )') ~ ' places') }}
    {%- endif -%}
    {{ return({'Float32': 'float', 'Float64': 'float', 'Date': 'date', 'Date32': 'date',
               'DateTime': 'instant', 'DateTime64': 'instant', 'FixedString': 'String'}.get(name, name)) }}
{% endmacro %}


{#- What a table is sorted by: `meta.sort_by`, else its grain as the tests of its yml say. The day is
    the partition and needs no place in it. -#}
{% macro clickhouse__sort_key(columns, unit) %}
    {%- set grain = (config.get('meta') or {}).get('sort_by') or clickhouse__tested_grain() -%}
    {%- set names = columns | map(attribute='name') | list -%}
    {%- set quoted = [] -%}
    {%- for name in grain if name in names and not (unit == 'day' and name == 'ds') -%}
        {% do quoted.append(adapter.quote(name)) %}
    {%- endfor -%}
    {{ return(quoted | join(', ')) }}
{% endmacro %}


{#- The columns that the model's tests say to be unique together. -#}
{% macro clickhouse__tested_grain() %}
    {%- for test in clickhouse__tests_of_the_model() -%}
        {%- if test.test_metadata.name == 'unique_grain' -%}
            {{ return(test.test_metadata.kwargs.columns) }}
        {%- elif test.test_metadata.name == 'unique' -%}
            {{ return([test.test_metadata.kwargs.column_name]) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return([]) }}
{% endmacro %}


{#- The columns that no row of the model may lack, as constraints and tests say. -#}
{% macro clickhouse__filled_columns() %}
    {%- set names = [] -%}
    {%- for column in model.columns.values()
            if column.get('constraints', []) | selectattr('type', 'equalto', 'not_null') | list -%}
        {% do names.append(column.name) %}
    {%- endfor -%}
    {%- for test in clickhouse__tests_of_the_model()
            if test.test_metadata.name == 'not_null' and not test.config.where and test.config.severity | lower == 'error' -%}
        {% do names.append(test.test_metadata.kwargs.column_name) %}
    {%- endfor -%}
    {{ return(names) }}
{% endmacro %}


{% macro clickhouse__tests_of_the_model() %}
    {%- set found = [] -%}
    {%- for node in graph.nodes.values() | selectattr('resource_type', 'equalto', 'test') | sort(attribute='unique_id')
            if node.get('attached_node') == model.unique_id and node.get('test_metadata') -%}
        {% do found.append(node) %}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- An empty table with these columns; on a cluster the two that it is made of. -#}
{% macro clickhouse__create_table(relation, columns, partition_key, sort_key) %}
    {%- set cluster = adapter.get_clickhouse_cluster_name() -%}
    {%- set stored = clickhouse__stored(relation) -%}
    {%- set sort_names = modules.re.sub('["`]', '', sort_key).split(', ') -%}
    {% call statement('create_table') -%}
        create table {{ stored }} {{ on_cluster_clause(relation) }} (
            {%- for column in columns %}
            {{ column.quoted }} {{ column.data_type }}{{ ',' if not loop.last }}
            {%- endfor %}
        )
        engine = {{ 'MergeTree' if cluster is none else 'ReplicatedMergeTree' }}
        {% if partition_key %}partition by {{ partition_key }}{% endif %}
        order by {{ ('(' ~ sort_key ~ ')' if ', ' in sort_key else sort_key) or 'tuple()' }}
        {#- An identical block that comes again is no mistake: it is there twice. And what a table is
            sorted by may have nulls. #}
        settings {{ 'non_' if cluster is none }}replicated_deduplication_window = 0
        {{- ', allow_nullable_key = 1' if columns | selectattr('name', 'in', sort_names) | selectattr('is_nullable') | list }}
    {%- endcall %}
    {% do clickhouse__distribute(relation, stored) %}
{% endmacro %}


{#- On a cluster: the distributed table over a stored one, with its columns of now. -#}
{% macro clickhouse__distribute(relation, stored) %}
    {%- set cluster = adapter.get_clickhouse_cluster_name() -%}
    {%- if cluster is not none -%}
        {% call statement('distribute') -%}
            create or replace table {{ relation }} {{ on_cluster_clause(relation) }} as {{ stored }}
            engine = Distributed({{ cluster.replace('"', "'") }}, '{{ stored.schema }}', '{{ stored.identifier }}', rand())
        {%- endcall %}
    {%- endif -%}
{% endmacro %}


{#- On a cluster: wait until every replica has what one of them got. -#}
{% macro clickhouse__sync_replicas(relation) %}
    {%- if adapter.get_clickhouse_cluster_name() is not none -%}
        {% call statement('sync_replicas') -%}
            system sync replica {{ on_cluster_clause(relation) }} {{ clickhouse__stored(relation) }}
        {%- endcall %}
    {%- endif -%}
{% endmacro %}


{#- Drop a side table of ours, and the mark that says that we are at work. -#}
{% macro clickhouse__drop_table(side) %}
    {% do clickhouse__drop_one(side) %}
    {%- if adapter.get_clickhouse_cluster_name() is not none -%}
        {% do clickhouse__drop_one(clickhouse__stored(side)) %}
    {%- endif -%}
    {% do clickhouse__drop_one(side.incorporate(path={'identifier': side.identifier ~ '_begun'})) %}
{% endmacro %}


{#- Whatever it is: after an exchange a side table's name may be a view's. -#}
{% macro clickhouse__drop_one(relation) %}
    {% call statement('drop_one') -%}
        drop table if exists {{ relation }} {{ on_cluster_clause(relation) }} sync
        settings max_table_size_to_drop = 0
    {%- endcall %}
{% endmacro %}


{#- Bring the columns of a table to those of the model, as `on_schema_change` says. -#}
{% macro clickhouse__change_columns(relation, columns, mode) %}
    {%- set there = {} -%}
    {%- for column in adapter.get_columns_in_relation(relation) -%}
        {% do there.update({column.name: column}) %}
    {%- endfor -%}
    {%- set names = columns | map(attribute='name') | list -%}
    {%- set added, changed, changes = [], [], [] -%}
    {%- set removed = there.keys() | reject('in', names) | list -%}
    {%- for column in columns -%}
        {%- if column.name not in there -%}
            {% do added.append(column.name) %}
            {% do changes.append('add column ' ~ column.quoted ~ ' ' ~ clickhouse__nullable_type(column)) %}
        {%- elif column.dtype != there[column.name].dtype -%}
            {% do changed.append(column.name) %}
            {%- if mode == 'sync_all_columns' -%}
                {% do changes.append('modify column ' ~ column.quoted ~ ' ' ~ column.data_type) %}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if mode == 'sync_all_columns' -%}
        {%- for name in removed -%}
            {% do changes.append('drop column ' ~ adapter.quote(name)) %}
        {%- endfor -%}
    {%- endif -%}
    {%- if mode == 'fail' and (added or removed or changed) -%}
        {% do exceptions.raise_compiler_error(
            'the columns of ' ~ relation ~ ' and of its query are out of sync: added ' ~ added ~ ', removed ' ~ removed
            ~ ', of another type ' ~ changed ~ '. Run once with --full-refresh') %}
    {%- endif -%}
    {%- if mode in ['append_new_columns', 'sync_all_columns'] and changes -%}
        {% call statement('change_columns') -%}
            alter table {{ clickhouse__stored(relation) }} {{ on_cluster_clause(relation) }} {{ changes | join(', ') }}
        {%- endcall %}
        {% do clickhouse__distribute(relation, clickhouse__stored(relation)) %}
    {%- endif -%}
{% endmacro %}


{#- Days that were built before a column was added have nothing in it. -#}
{% macro clickhouse__nullable_type(column) %}
    {%- set type = 'Nullable(' ~ api.Column.create(column.name, column.dtype).data_type ~ ')' -%}
    {{ return('LowCardinality(' ~ type ~ ')' if column.is_low_cardinality else type) }}
{% endmacro %}


{#- Of a statement that fills a table: any number of partitions, and no block is left out for being equal
    to one before. What says so has changed its name: a server is told what it knows. -#}
{% macro clickhouse__insert_settings() -%}
    {%- set known = run_query(
        "select name from system.settings where name in ('insert_deduplicate', 'deduplicate_insert',"
        ~ " 'deduplicate_insert_select') order by name").rows -%}
    settings max_partitions_per_insert_block = 0
    {%- for row in known -%}
        , {{ row[0] }} = {{ 0 if row[0] == 'insert_deduplicate' else "'disable'" }}
    {%- endfor -%}
{%- endmacro %}


{#- Of a statement that replaces partitions, also by none and whatever their size. Older servers always
    do the first, and would refuse a setting that they do not know. -#}
{% macro clickhouse__replace_settings() -%}
    settings max_partition_size_to_drop = 0
    {%- if adapter.is_at_or_after_version('26.6') -%}
        , allow_replace_partition_from_empty_source = 1
    {%- endif -%}
{%- endmacro %}
