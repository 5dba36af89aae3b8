-- Grain: one row per order_id.

{{ config(meta={'unit': 'day'}, sql_header=joins_in_one_pass()) }}

with lines as (

    select
        ds,
        slot_kind,
        slot_date,
        line_no,
        order_id,
        uniq_id,
        date_time,
        city_id,
        city_name,
        customer_id,
        first_name,
        last_name,
        item_id,
        item_name,
        quantity,
        payment_amount,
        status
    from {{ ref('stg_orders__order_lines') }}
    where {{ in_window('ds') }}

),

-- Wherever else those orders occur, on any day.
copies as (

    {{ rows_of_keys(ref('stg_orders__order_copies'), key='order_id', keys='lines') }}

),

ranked as (

    select
        order_id,
        ds,
        slot_kind,
        slot_date,
        last_line_no,
        row_number() over (
            partition by order_id
            order by
                case when slot_kind = 'increment' then 1 else 0 end desc,
                slot_date desc,
                last_line_no desc
        ) as place
    from copies

)

select
    lines.ds,
    lines.order_id,
    lines.uniq_id,
    lines.date_time,
    lines.city_id,
    lines.city_name,
    lines.customer_id,
    lines.first_name,
    lines.last_name,
    lines.item_id,
    lines.item_name,
    lines.quantity,
    lines.payment_amount,
    lines.status
from lines
inner join ranked
    on
        lines.order_id = ranked.order_id
        and lines.ds = ranked.ds
        and lines.line_no = ranked.last_line_no
        and lines.slot_kind = ranked.slot_kind
        and (lines.slot_date = ranked.slot_date or lines.slot_kind = 'report')
where ranked.place = 1
