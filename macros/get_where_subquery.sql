{#- What a data test looks at: the days of the window, where its model is replaced by days, so that
    testing a night's build costs the same at any length of history. A `where` still narrows it. -#}
{% macro default__get_where_subquery(relation) -%}
    {%- set conditions = [] -%}
    {%- set tested = graph.nodes.get(model.get('attached_node')) if execute else none -%}
    {%- if tested and tested.config.materialized == 'incremental'
            and replacement_unit(tested.config) == 'day' -%}
        {% do conditions.append(in_window('ds')) %}
    {%- endif -%}
    {%- if config.get('where') -%}
        {% do conditions.append('(' ~ config.get('where') ~ ')') %}
    {%- endif -%}
    {%- if conditions -%}
        {{ return('(select * from ' ~ relation ~ ' where ' ~ conditions | join(' and ') ~ ') dbt_subquery') }}
    {%- endif -%}
    {{ return(relation) }}
{%- endmacro %}
