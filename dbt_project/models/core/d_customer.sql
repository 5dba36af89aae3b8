-- Grain: one row per customer_id.

{{ config(meta={'unit': 'whole'}) }}

{{ latest_by_key(ref('ods_orders'), key='customer_id', values=['first_name', 'last_name']) }}
