{#- The columns identify a row: no two rows have the same values in them. -#}
{% test unique_grain(model, columns) %}

select
    {{ columns | join(', ') }},
    count(*) as rows_cnt
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1

{% endtest %}
