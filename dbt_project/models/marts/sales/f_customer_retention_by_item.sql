-- Grain: one row per period_name, period_id, item_id.

{{ config(meta={'unit': 'period'}) }}

with sales as (

    select
        ds,
        customer_id,
        item_id,
        status,
        payment_amount
    from {{ ref('f_sales') }}
    where {{ in_days_of_window_periods('ds') }} and item_id is not null

),

{{ customer_retention('sales', by=['item_id']) }}
