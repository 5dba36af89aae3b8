-- Days with far fewer or far more orders and refunds than their weekday usually has.
{{ config(severity='warn', tags=['orders']) }}

{{ days_of_unusual_volume(ref('f_sales'), '1') }}
