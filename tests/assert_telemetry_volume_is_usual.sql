-- Days with far fewer or far more events than their weekday usually has.
{{ config(severity='warn', tags=['telemetry']) }}

{{ days_of_unusual_volume(ref('dm_client_telemetry'), 'events_cnt') }}
