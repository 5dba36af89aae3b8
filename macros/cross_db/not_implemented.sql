{#- What every cross-engine macro does on an engine that it does not know: it raises, never guesses.
    Not while parsing, so that `dbt parse` passes for every target. -#}
{% macro not_implemented(name) %}
    {%- if execute -%}
        {% do exceptions.raise_compiler_error(name ~ ' is not implemented for ' ~ target.type) %}
    {%- endif -%}
    {{ return('') }}
{% endmacro %}
