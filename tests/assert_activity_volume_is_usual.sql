-- Days with far fewer or far more feed events than their weekday usually has.
{{ config(severity='warn', tags=['activity']) }}

{{ days_of_unusual_volume(ref('fct_user_activity'), 'views + likes') }}
