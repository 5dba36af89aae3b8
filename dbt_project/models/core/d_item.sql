-- Grain: one row per item_id.

{{ config(meta={'unit': 'whole'}) }}

{{ latest_by_key(ref('ods_orders'), key='item_id', values=['item_name']) }}
