{#- Expression: an instant from an ISO text; one without an offset is UTC. -#}
{% macro instant_literal(text) -%}
    {{ return(adapter.dispatch('instant_literal', 'vitrina')(instant_with_offset(text))) }}
{%- endmacro %}

{% macro default__instant_literal(text) -%}
    {{ return(not_implemented('instant_literal')) }}
{%- endmacro %}

{% macro postgres__instant_literal(text) -%}
    (timestamptz '{{ text }}')
{%- endmacro %}

{% macro clickhouse__instant_literal(text) -%}
    {%- set instant = modules.datetime.datetime.fromisoformat(text).astimezone(modules.pytz.utc) -%}
    toDateTime64('{{ instant.strftime('%Y-%m-%d %H:%M:%S.%f') }}', 6, 'UTC')
{%- endmacro %}


{#- An ISO text with an offset: UTC where it names none. -#}
{% macro instant_with_offset(text) %}
    {%- set text = text | string | trim -%}
    {%- set form = '[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?' -%}
    {%- if not modules.re.fullmatch(form, text) -%}
        {% do exceptions.raise_compiler_error('not an instant in ISO 8601: ' ~ text) %}
    {%- endif -%}
    {%- set instant = modules.datetime.datetime.fromisoformat(text) -%}
    {%- if instant.tzinfo is none -%}
        {%- set instant = instant.replace(tzinfo=modules.pytz.utc) -%}
    {%- endif -%}
    {{ return(instant.isoformat()) }}
{% endmacro %}
