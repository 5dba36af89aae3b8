-- Orders and refunds without a customer are in no measure of retention: how many, by day.
{{ config(severity='warn', tags=['orders']) }}

select
    ds,
    count(*) as orders_cnt,
    sum(payment_amount) as payment_amount
from {{ ref('f_sales') }}
where {{ in_window('ds') }} and customer_id is null
group by ds
