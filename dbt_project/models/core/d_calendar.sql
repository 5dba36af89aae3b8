-- Grain: one row per ds.

{{ config(meta={'unit': 'whole'}) }}

with days as (

    {{ days_between('2010-01-01', '2035-12-31') }}

)

select
    ds,
    {{ iso_year('ds') }} as iso_year,
    {{ iso_week('ds') }} as iso_week,
    {{ week_start('ds') }} as week_start,
    {{ month_start('ds') }} as month_start
from days
