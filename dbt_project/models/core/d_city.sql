-- Grain: one row per city_id.

{{ config(meta={'unit': 'whole'}) }}

{{ latest_by_key(ref('ods_orders'), key='city_id', values=['city_name']) }}
