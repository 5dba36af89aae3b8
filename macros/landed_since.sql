{#-
    What has landed since a table was built that keeps, in its column `_seen_load_id`, the newest load
    of the ledger that it was made of: {'first_ds': …, 'load_id': …}.

    `first_ds` is the first day that such a load held, an ISO text: all before it is as it was. None
    where everything has to be looked at: the table is new, is rebuilt, or was empty; '' where nothing
    has landed. `load_id` is the newest load now, to be kept. It is read before the rows are: what
    lands in between is seen, and looked at again by the next run.
-#}
{% macro landed_since(relation, sources) %}
    {%- if not execute or model.resource_type == 'unit_test' -%}
        {{ return({'first_ds': none, 'load_id': 0}) }}
    {%- endif -%}
    {%- set of_sources = "source in ('" ~ sources | join("', '") ~ "')" -%}
    {%- set newest = run_query(
        'select max(load_id) as load_id from ' ~ source('ledger', 'loads') ~ ' where ' ~ of_sources
        ).columns[0].values()[0] or 0 -%}
    {%- set seen = none -%}
    {%- if is_incremental() and window_days() is not none -%}
        {%- set seen = run_query('select max(_seen_load_id) as load_id from ' ~ relation).columns[0].values()[0] -%}
    {%- endif -%}
    {%- if not seen -%}
        {{ return({'first_ds': none, 'load_id': newest | int}) }}
    {%- endif -%}
    {%- set loads = run_query(
        'select days from ' ~ source('ledger', 'loads') ~ ' where ' ~ of_sources ~ ' and load_id > ' ~ seen | int) -%}
    {%- set days = [] -%}
    {%- for load in loads.rows -%}
        {% do days.extend(fromjson(load[0]).keys()) %}
    {%- endfor -%}
    {{ return({'first_ds': days | min if days else '', 'load_id': [newest | int, seen | int] | max}) }}
{% endmacro %}
