"""What the demo does for each domain: what to land, with which window, and what to show of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.outside import DataSet

Command = tuple[str, ...]  # a source and its arguments, as one types them


@dataclass(frozen=True)
class Shown:
    """A table that the demo shows: what it is called, what is counted of it, and its rows.

    `counts` is a query of one row whose column names say what was counted.
    """

    title: str
    query: str
    counts: str = ""


@dataclass(frozen=True)
class Domain:
    """A domain: its name is its tag in dbt and that of its plan."""

    name: str
    needs: str  # what of the sandbox
    landings: Callable[[DataSet], Sequence[Command]]
    tables: Sequence[Shown]
    is_in: Callable[[DataSet], bool] = lambda _: True


def _telemetry(data: DataSet) -> Sequence[Command]:
    return [
        ("crm",),
        ("telemetry", "--start-date", str(data.start), "--end-date", str(data.end)),
    ]


def _orders(data: DataSet) -> Sequence[Command]:
    assert data.orders is not None
    window = ("--start-date", str(data.orders.until), "--end-date", str(data.orders.end))
    return [("orders", "--mode", "report"), ("orders", *window)]


def _activity(data: DataSet) -> Sequence[Command]:
    assert data.app is not None
    return [("feed", "--start-date", str(data.app.start), "--end-date", str(data.app.end))]


TELEMETRY = Domain(
    name="telemetry",
    needs="CRM API",
    landings=_telemetry,
    tables=[
        Shown(
            "marts.dm_client_telemetry",
            "select ds, client_id, segment, country, plan, events_cnt, errors_cnt, avg_latency_ms,"
            " p95_latency_ms, sessions_cnt, last_event_at"
            " from marts.dm_client_telemetry order by ds, events_cnt desc, client_id limit 8",
            "select count(*) as rows, count(distinct ds) as days,"
            " count(distinct client_id) as clients from marts.dm_client_telemetry",
        ),
    ],
)
ORDERS = Domain(
    name="orders",
    needs="report API, S3",
    landings=_orders,
    tables=[
        Shown(
            "core.f_sales",
            "select ds, order_id, customer_id, item_id, city_id, status, quantity, payment_amount"
            " from core.f_sales order by ds desc, order_id limit 5",
            "select count(*) as orders, count(distinct ds) as days,"
            " count(distinct customer_id) as customers, sum(payment_amount) as revenue"
            " from core.f_sales",
        ),
        Shown(
            "marts.f_customer_retention",
            "select period_name, period_id,"
            " new_customers_count, new_customers_revenue, returning_customers_count,"
            " returning_customers_revenue, refunded_customer_count, customers_refunded"
            " from marts.f_customer_retention order by period_name desc, period_id",
        ),
        Shown(
            "the items that sold best, from core.f_sales and core.d_item",
            "select item_id, max(item_name) as item_name,"
            " count(*) filter (where status = 'shipped') as orders,"
            " count(*) filter (where status = 'refunded') as refunds,"
            " sum(payment_amount) as revenue"
            " from core.f_sales inner join core.d_item using (item_id)"
            " group by item_id order by revenue desc limit 5",
        ),
    ],
    is_in=lambda data: data.orders is not None,
)
ACTIVITY = Domain(
    name="activity",
    needs="the social app's ClickHouse",
    landings=_activity,
    tables=[
        Shown(
            "marts.activity_slices, the last day",
            "select event_date, dimension, dimension_value, views, likes, messages_received,"
            " messages_sent, users_received, users_sent from marts.activity_slices"
            " where event_date = (select max(event_date) from marts.activity_slices)"
            " and dimension in ('os', 'gender') order by dimension, views desc",
            "select count(*) as rows, count(distinct event_date) as days"
            " from marts.activity_slices",
        ),
    ],
    is_in=lambda data: data.app is not None,
)
DOMAINS = {domain.name: domain for domain in (TELEMETRY, ORDERS, ACTIVITY)}
