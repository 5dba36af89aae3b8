{#- Name: the engine's own name of a type as models and contracts write it, without nullability.
    One map for the tables, and for the test that compares them with their contracts. -#}
{% macro engine_type(data_type) -%}
    {{ return(adapter.dispatch('engine_type', 'vitrina')(data_type | string | lower | trim)) }}
{%- endmacro %}

{% macro default__engine_type(data_type) -%}
    {{ return(not_implemented('engine_type')) }}
{%- endmacro %}

{% macro postgres__engine_type(data_type) -%}
    {{ return(data_type) }}
{%- endmacro %}

{#- `integer` comes as `int32`: dbt-clickhouse has translated that one. -#}
{% macro clickhouse__engine_type(data_type) -%}
    {%- set types = {
        'boolean': 'Bool',
        'smallint': 'Int16',
        'integer': 'Int32',
        'int32': 'Int32',
        'bigint': 'Int64',
        'double precision': 'Float64',
        'text': 'String',
        'date': 'Date32',
        'timestamp with time zone': "DateTime64(6, 'UTC')",
    } -%}
    {%- set decimal = modules.re.fullmatch('numeric\\(\\s*([0-9]+)\\s*,\\s*([0-9]+)\\s*\\)', data_type) -%}
    {%- if decimal -%}
        {{ return('Decimal(' ~ decimal.group(1) ~ ', ' ~ decimal.group(2) ~ ')') }}
    {%- elif data_type not in types -%}
        {% do exceptions.raise_compiler_error('ClickHouse has no type for ' ~ data_type) %}
    {%- endif -%}
    {{ return(types[data_type]) }}
{%- endmacro %}
