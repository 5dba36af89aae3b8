-- Grain: one row per city_id.

{{ config(
    unique_key='city_id',
    meta={'unit': 'key', 'touched_keys': "select city_id from {{ this }} where {{ in_window('_ds') }}"},
    sql_header=joins_in_one_pass(),
) }}

{{ latest_by_key(ref('ods_orders'), key='city_id', values=['city_name']) }}
