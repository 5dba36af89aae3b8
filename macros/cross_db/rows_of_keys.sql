{#- Step: the rows of a relation that have one of the keys in a step. Its cost grows with the keys and
    not with the relation, which has an index on the key. Without a window, where every key is asked
    for, it is the whole relation. -#}
{% macro rows_of_keys(relation, key, keys) -%}
    {{ return(adapter.dispatch('rows_of_keys', 'vitrina')(relation, key, keys)) }}
{%- endmacro %}

{% macro default__rows_of_keys(relation, key, keys) -%}
    {{ return(not_implemented('rows_of_keys')) }}
{%- endmacro %}

{#- `offset 0` keeps it a look-up a key. As a join PostgreSQL would rather read all of the relation,
    and the more often the longer the history: new days have no statistics. -#}
{% macro postgres__rows_of_keys(relation, key, keys) -%}
    {%- if window_days() is none -%}
    select * from {{ relation }}
    {%- else -%}
    select found.*
    from (
        select {{ key }}
        from {{ keys }}
        group by {{ key }}
    ) as wanted
    cross join lateral (
        select *
        from {{ relation }} as every_row
        where every_row.{{ key }} = wanted.{{ key }}
        offset 0
    ) as found
    {%- endif -%}
{%- endmacro %}

{#- The keys become a set, by which the parts of a table that is sorted by the key are skipped. -#}
{% macro clickhouse__rows_of_keys(relation, key, keys) -%}
    select * from {{ relation }}
    {%- if window_days() is not none %}
    where {{ key }} in (select {{ key }} from {{ keys }})
    {%- endif %}
{%- endmacro %}
