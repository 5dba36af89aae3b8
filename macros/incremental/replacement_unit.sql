{#-
    What an incremental model replaces, its `meta.unit`:

    day     exactly the days of the window, of a table partitioned by `ds`; emptied days are emptied
    period  the periods (`period_name`, `period_id`) that hold the window's days
    key     the keys (`unique_key`) that `meta.touched_keys` selects, emptied ones included
    whole   all rows, in one transaction: small tables whose rows have no day; a model that keeps some
            of its old rows says `meta.reads_itself`

    The model's own query computes just the rows of that unit, by `in_window('ds')` and its like.
    With no window, each of them replaces everything.
-#}
{% macro replacement_unit(model_config=none) %}
    {%- set meta = (model_config or model.config).get('meta') or {} -%}
    {%- set unit = meta.get('unit') -%}
    {%- if unit not in ['day', 'period', 'key', 'whole'] -%}
        {% do exceptions.raise_compiler_error(
            'an incremental model says what it replaces: meta.unit is day, period, key or whole, not ' ~ unit) %}
    {%- endif -%}
    {{ return(unit) }}
{% endmacro %}
