{#- Query: the days of the window on which the sum of a column is less than half, or more than double,
    of the median of the same weekday in the eight weeks before, where three of those have rows. A
    day without a row has 0. The relation has a column ds. -#}
{% macro days_of_unusual_volume(relation, column) -%}
{%- set weeks = range(1, 9) -%}
{%- set read_days = window_days() -%}
{%- if read_days -%}
    {%- set read_days = read_days | list -%}
    {%- for day in window_days() -%}
        {%- for week in weeks -%}
            {% do read_days.append(shifted_day(day, -7 * week)) %}
        {%- endfor -%}
    {%- endfor -%}
    {%- set read_days = read_days | unique | sort -%}
{%- endif %}

with days as (

    select
        ds,
        sum({{ column }}) as volume
    from {{ relation }}
    where {{ in_days('ds', read_days) }}
    group by ds

),

-- Each day as the weeks after it look back at it.
past as (

    {% for week in weeks -%}
        select
            {{ days_later('ds', 7 * week) }} as ds,
            volume
        from days
        {{ 'union all' if not loop.last }}
    {% endfor %}

),

known as (

    select
        ds,
        count(*) as days_cnt
    from past
    group by ds

),

usual as (

    {{ percentile_by_key('past', keys=['ds'], value='volume', fraction=0.5, name='usual_volume') }}

)

select
    known.ds,
    coalesce(days.volume, 0) as volume,
    usual.usual_volume
from known
inner join usual on known.ds = usual.ds
left join days on known.ds = days.ds
where
    {{ in_window('known.ds') }}
    {% if read_days is none -%}
        and known.ds <= (select max(newest.ds) from days as newest)
    {%- endif %}
    and known.days_cnt >= 3
    and (coalesce(days.volume, 0) < 0.5 * usual.usual_volume or coalesce(days.volume, 0) > 2 * usual.usual_volume)
{%- endmacro %}
