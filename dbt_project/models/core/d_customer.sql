-- Grain: one row per customer_id.

{{ config(
    unique_key='customer_id',
    meta={'unit': 'key', 'touched_keys': "select customer_id from {{ this }} where {{ in_window('_ds') }}"},
    sql_header=joins_in_one_pass(),
) }}

{{ latest_by_key(ref('ods_orders'), key='customer_id', values=['first_name', 'last_name']) }}
