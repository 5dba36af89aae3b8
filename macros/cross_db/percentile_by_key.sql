{#- Step: one row a key with the exact interpolated percentile of its non-null values. -#}
{% macro percentile_by_key(relation, keys, value, fraction, name) -%}
    {{ return(adapter.dispatch('percentile_by_key', 'vitrina')(relation, keys, value, fraction, name)) }}
{%- endmacro %}

{% macro default__percentile_by_key(relation, keys, value, fraction, name) -%}
    {{ return(not_implemented('percentile_by_key')) }}
{%- endmacro %}

{% macro postgres__percentile_by_key(relation, keys, value, fraction, name) -%}
    select
        {{ keys | join(', ') }},
        percentile_cont({{ fraction }}) within group (order by {{ value }}) as {{ name }}
    from {{ relation }}
    where {{ value }} is not null
    group by {{ keys | join(', ') }}
{%- endmacro %}

{% macro clickhouse__percentile_by_key(relation, keys, value, fraction, name) -%}
    select
        {{ keys | join(', ') }},
        quantileExactInclusive({{ fraction }})(toFloat64({{ value }})) as {{ name }}
    from {{ relation }}
    where {{ value }} is not null
    group by {{ keys | join(', ') }}
{%- endmacro %}
