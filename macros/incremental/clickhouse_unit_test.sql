{#- Unit tests of ClickHouse: an answer without a row has no columns either, and dbt, which looks for one
    of its own in it, would fail where nothing is expected and nothing came. -#}
{% materialization unit, adapter='clickhouse' %}
    {%- set done = dbt.materialization_unit_clickhouse() -%}
    {%- set answer = load_result('main') -%}
    {%- if answer.table.columns | length == 0 -%}
        {% do store_result('main', response=answer.response, agate_table=run_query(
            "select '' as actual_or_expected limit 0")) %}
    {%- endif -%}
    {{ return(done) }}
{% endmaterialization %}
