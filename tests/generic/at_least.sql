{#- No value of the column is below the bound; nulls are not looked at. -#}
{% test at_least(model, column_name, value) %}

select {{ column_name }}
from {{ model }}
where {{ column_name }} < {{ value }}

{% endtest %}
