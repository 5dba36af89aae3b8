-- Each order of the days' lines is one row of f_sales, on one of the days on which it occurs; and no
-- row is there without a line.
{{ config(tags=['orders']) }}

with lines as (

    select
        ds,
        order_id
    from {{ ref('stg_orders__order_lines') }}
    where {{ in_window('ds') }}
    group by ds, order_id

),

sales as (

    select
        ds,
        order_id,
        count(*) as rows_cnt
    from {{ ref('f_sales') }}
    where {{ in_window('ds') }}
    group by ds, order_id

),

unmatched as (

    select
        sales.rows_cnt,
        coalesce(lines.ds, sales.ds) as ds,
        coalesce(lines.order_id, sales.order_id) as order_id,
        case when lines.order_id is null then 0 else 1 end as lines_cnt
    from lines
    full outer join sales on lines.ds = sales.ds and lines.order_id = sales.order_id
    where lines.order_id is null or sales.order_id is null or sales.rows_cnt > 1

),

copies as (

    {{ rows_of_keys(ref('stg_orders__order_copies'), key='order_id', keys='unmatched') }}

)

select
    unmatched.ds,
    unmatched.order_id,
    unmatched.lines_cnt,
    unmatched.rows_cnt
from unmatched
left join copies
    on
        unmatched.order_id = copies.order_id
        and unmatched.ds <> copies.ds
        and unmatched.lines_cnt = 1
        and unmatched.rows_cnt is null
where copies.order_id is null
