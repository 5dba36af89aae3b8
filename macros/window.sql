{#-
    The window: which business days this run builds. From the vars `start_date` and `end_date`
    (half-open) or `days` (a list); without them from the environment's VITRINA_START_DATE,
    VITRINA_END_DATE and VITRINA_DAYS (with commas), which cost no parse when they change. None of
    all these, or --full-refresh: every landed day. Read at run time only: a file parsed under one
    window serves all of them.
-#}

{#- The days of the window as sorted ISO texts, or none for every landed day. -#}
{% macro window_days() %}
    {#- A unit test brings rows of its own days. -#}
    {%- if not execute or should_full_refresh() or model.resource_type == 'unit_test' -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set start, end, days = var('start_date', none), var('end_date', none), var('days', none) -%}
    {%- if not start and not end and days is none -%}
        {%- set start, end = env_var('VITRINA_START_DATE', ''), env_var('VITRINA_END_DATE', '') -%}
        {%- set days = env_var('VITRINA_DAYS').split(',') if env_var('VITRINA_DAYS', '') else none -%}
    {%- endif -%}
    {%- if days is none and not start and not end -%}
        {{ return(none) }}
    {%- endif -%}
    {%- if days is not none and (start or end) -%}
        {% do exceptions.raise_compiler_error('give start_date and end_date, or days, not both') %}
    {%- endif -%}
    {%- set found = [] -%}
    {%- if days is not none -%}
        {%- if days is string or days is mapping or days is not iterable -%}
            {% do exceptions.raise_compiler_error('days is a list of dates, not ' ~ days) %}
        {%- endif -%}
        {%- for day in days -%}
            {% do found.append(parse_day(day).isoformat()) %}
        {%- endfor -%}
        {{ return(found | unique | sort) }}
    {%- endif -%}
    {%- if not start or not end -%}
        {% do exceptions.raise_compiler_error('start_date and end_date go together') %}
    {%- endif -%}
    {%- set first, last = parse_day(start), parse_day(end) -%}
    {%- if last <= first -%}
        {% do exceptions.raise_compiler_error(
            'the window [' ~ first ~ ', ' ~ last ~ ') holds no day: end_date is exclusive') %}
    {%- endif -%}
    {%- for n in range((last - first).days) -%}
        {% do found.append((first + modules.datetime.timedelta(days=n)).isoformat()) %}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}


{#- A date of Python's from an ISO text or what YAML made of one; an error that names it otherwise. -#}
{% macro parse_day(day) %}
    {%- set text = day | string | trim -%}
    {%- set is_day = modules.re.fullmatch('(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])', text) -%}
    {%- if is_day -%}
        {%- set year, month, number = text.split('-') | map('int') -%}
        {%- set leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) -%}
        {%- set is_day = number <= [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] -%}
    {%- endif -%}
    {%- if not is_day -%}
        {% do exceptions.raise_compiler_error('not a date of the form YYYY-MM-DD: ' ~ text) %}
    {%- endif -%}
    {{ return(modules.datetime.date.fromisoformat(text)) }}
{% endmacro %}


{#- Whether a date column lies in the window. -#}
{% macro in_window(column) -%}
    {{ in_days(column, window_days()) }}
{%- endmacro %}


{#- Whether a date column is one of these days (sorted ISO texts; none: any day): ranges of
    constants, so that partitions are pruned. -#}
{% macro in_days(column, days) -%}
    {%- if days is none -%}
        1 = 1
    {%- elif not days -%}
        1 = 0
    {%- else -%}
        (
        {%- for first, last in day_ranges(days) %}
            {{ 'or ' if not loop.first }}{{ column }} >= {{ day_literal(first) }} and {{ column }} <= {{ day_literal(last) }}
        {%- endfor %}
        )
    {%- endif -%}
{%- endmacro %}


{#- A day so many days after (before, if negative) another; both are ISO texts. -#}
{% macro shifted_day(day, by) %}
    {{ return((parse_day(day) + modules.datetime.timedelta(days=by)).isoformat()) }}
{% endmacro %}


{#- Sorted ISO days as pairs of the first and the last day of each run without a gap. -#}
{% macro day_ranges(days) %}
    {%- set ranges = [] -%}
    {%- for day in days -%}
        {%- if ranges and ranges[-1][1] == shifted_day(day, -1) -%}
            {% do ranges.append([ranges.pop()[0], day]) %}
        {%- else -%}
            {% do ranges.append([day, day]) %}
        {%- endif -%}
    {%- endfor -%}
    {{ return(ranges) }}
{% endmacro %}


{#- The periods that hold the window's days, as sorted pairs of period_name and the ISO date of its
    first day ('weekly': the ISO week's Monday, 'monthly'); none for every period. -#}
{% macro window_periods() %}
    {%- set days = window_days() -%}
    {%- if days is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set found = [] -%}
    {%- for text in days -%}
        {%- set day = parse_day(text) -%}
        {%- set monday = day - modules.datetime.timedelta(days=day.weekday()) -%}
        {% do found.append(('monthly', day.replace(day=1).isoformat())) %}
        {% do found.append(('weekly', monday.isoformat())) %}
    {%- endfor -%}
    {{ return(found | unique | sort) }}
{% endmacro %}


{#- Whether a period is one that the window's days touch. -#}
{% macro in_window_periods(name_column='period_name', id_column='period_id') -%}
    {%- set periods = window_periods() -%}
    {%- if periods is none -%}
        1 = 1
    {%- elif not periods -%}
        1 = 0
    {%- else -%}
        (
        {%- for name, id in periods %}
            {{ 'or ' if not loop.first }}{{ name_column }} = '{{ name }}' and {{ id_column }} = {{ day_literal(id) }}
        {%- endfor %}
        )
    {%- endif -%}
{%- endmacro %}


{#- Whether a date column lies in one of the periods that the window's days touch: ranges of
    constants, so that partitions are pruned. -#}
{% macro in_days_of_window_periods(column) -%}
    {%- set periods = window_periods() -%}
    {%- if periods is none -%}
        {{ in_days(column, none) }}
    {%- else -%}
        {%- set found = [] -%}
        {%- for name, id in periods -%}
            {%- set first = parse_day(id) -%}
            {%- set after = first + modules.datetime.timedelta(days=7 if name == 'weekly' else 31) -%}
            {%- set after = after if name == 'weekly' else after.replace(day=1) -%}
            {%- for n in range((after - first).days) -%}
                {% do found.append((first + modules.datetime.timedelta(days=n)).isoformat()) %}
            {%- endfor -%}
        {%- endfor -%}
        {{ in_days(column, found | unique | sort) }}
    {%- endif -%}
{%- endmacro %}


{#- The zone in which days are cut. -#}
{% macro business_timezone() -%}
    {{ return(var('business_timezone', none) or env_var('BUSINESS_TIMEZONE', '') or 'Europe/Moscow') }}
{%- endmacro %}


{#- Expression: the first instant of a business day, given as an ISO text. Where clocks go forward at
    midnight it is later on the clock; where they go back over it, it is the first of the two. -#}
{% macro day_start(day) -%}
    {%- set date = parse_day(day) -%}
    {%- set zone = modules.pytz.timezone(business_timezone()) -%}
    {%- set midnight = modules.datetime.datetime(date.year, date.month, date.day) -%}
    {%- set found = [] -%}
    {%- for is_dst in [true, false] -%}
        {%- set instant = zone.localize(midnight, is_dst=is_dst).astimezone(modules.pytz.utc) -%}
        {%- if instant.astimezone(zone).date() == date -%}
            {% do found.append(instant.isoformat()) %}
        {%- endif -%}
    {%- endfor -%}
    {#- None where the day itself was skipped: the instant of the skip. -#}
    {{ instant_literal((found or [zone.localize(midnight, is_dst=false).astimezone(modules.pytz.utc).isoformat()]) | min) }}
{%- endmacro %}


{#- The run's instant, for audit columns only: the var `run_at`, else the end of the window, else
    (every landed day) the instant at which dbt started. -#}
{% macro run_at() -%}
    {%- set days = window_days() -%}
    {%- if var('run_at', none) -%}
        {{ instant_literal(var('run_at')) }}
    {%- elif days -%}
        {{ day_start(shifted_day(days[-1], 1)) }}
    {%- else -%}
        {{ instant_literal(run_started_at.isoformat()) }}
    {%- endif -%}
{%- endmacro %}


{#- Refuses to cut days in another zone than landing did. On run start. -#}
{% macro check_business_timezone() %}
    {%- if execute and flags.WHICH in ['build', 'run', 'test'] -%}
        {%- set settings = adapter.get_relation(target.database, 'raw', 'settings') -%}
        {%- if settings -%}
            {%- set found = run_query(
                "select value from raw.settings where name = 'business_timezone'").rows -%}
            {%- if found and found[0][0] != business_timezone() -%}
                {% do exceptions.raise_compiler_error(
                    'BUSINESS_TIMEZONE is ' ~ business_timezone() ~ ', the days of this warehouse are cut in '
                    ~ found[0][0] ~ ': docs/runbook.md says how to change it') %}
            {%- endif -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}
