-- Grain: one row per item_id.

{{ config(
    unique_key='item_id',
    meta={'unit': 'key', 'touched_keys': "select item_id from {{ this }} where {{ in_window('_ds') }}"},
    sql_header=joins_in_one_pass(),
) }}

{{ latest_by_key(ref('ods_orders'), key='item_id', values=['item_name']) }}
