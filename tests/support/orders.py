"""A shop under test: deliveries to its report API and S3, their landing, and what must come of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sandbox import delivery as sandbox_delivery
from sandbox.reports import ReportsServer, reports_server
from sandbox.s3 import s3_server
from tests.oracle import orders as oracle
from tests.support.vitrina import Answer, Vitrina

HEADER = "uniq_id,date_time,city_id,customer_id,item_id,quantity,payment_amount,status"
# What people and other models read: equal for equal deliveries, however they were landed.
TABLES = (
    "ods.ods_orders",
    "core.d_customer",
    "core.d_item",
    "core.d_city",
    "core.f_sales",
    "marts.f_customer_retention",
    "marts.f_customer_retention_by_item",
)
RAW_TABLES = (
    "raw.user_order_log",
    "raw.order_copies",
    "raw.customer_research",
    "raw.user_activity_log",
    "raw.price_log",
)
CHECKED = {name.partition(".")[2]: name for name in TABLES[1:]}


def known(delivery: sandbox_delivery.Delivery) -> oracle.Delivery:
    """A delivery as the oracle knows it: its kind, its date, its bytes."""
    return oracle.Delivery(str(delivery.kind), delivery.date, dict(delivery.files))


def file(*lines: str, header: str = HEADER) -> dict[str, bytes]:
    """A delivery's files with these order lines and nothing in the other files."""
    return {
        "user_order_log": "".join(f"{line}\n" for line in (header, *lines)).encode(),
        "customer_research": b"date_id,category_id,geo_id,sales_qty,sales_amt\n",
        "user_activity_log": b"id,uniq_id,date_time,action_id,customer_id,quantity\n",
        "price_log": b"",
    }


def line(
    uniq_id: str = "a",
    at: str = "2024-02-07T12:00:00",
    city: str = "1",
    customer: str = "c1",
    item: str = "i1",
    quantity: str = "1",
    amount: str = "100",
    status: str = "shipped",
) -> str:
    """An order line."""
    return ",".join((uniq_id, at, city, customer, item, quantity, amount, status))


def report(*lines: str, key: object = 0) -> sandbox_delivery.Delivery:
    """A report of February 2024; another `key`, another id."""
    return sandbox_delivery.report(date(2024, 2, 1), date(2024, 2, 29), file(*lines), key)


def increment(day: str, *lines: str, key: object = 0) -> sandbox_delivery.Delivery:
    """The increment of a day."""
    return sandbox_delivery.increment(date.fromisoformat(day), file(*lines), key)


@dataclass
class Shopfront:
    """A Vitrina with a report API and S3, and what was landed from them so far."""

    vitrina: Vitrina
    reports: ReportsServer = field(repr=False)
    zone: ZoneInfo = oracle.MOSCOW
    landed: list[oracle.Delivery] = field(default_factory=list, repr=False)
    to_build: set[date] = field(default_factory=set)
    places: set[str] = field(default_factory=set, repr=False)
    exact_days: bool = True  # know which days each landing changes: too slow for real sizes

    def note(self, delivery: sandbox_delivery.Delivery) -> None:
        """Remember that a delivery was landed."""
        one = known(delivery)
        if self.exact_days:
            self.to_build |= oracle.changed_days(self.landed, one, self.zone)
        self.landed.append(one)
        self.places |= {
            f"{self.reports.file_url(delivery, line.file)}:{line.line_no}"
            for line in oracle.tables([one], self.zone).quarantined
        }

    def land(self, *deliveries: sandbox_delivery.Delivery) -> dict[str, Any]:
        """Deliver and land these, one after the other; returns the last landing's answer."""
        answer: dict[str, Any] = {}
        for delivery in deliveries:
            self.reports.deliver(delivery)
            answer = self.vitrina.ingest(*arguments(delivery))
            self.note(delivery)
        return answer

    def refuse(self, delivery: sandbox_delivery.Delivery) -> Answer:
        """Deliver and try to land what must be refused."""
        self.reports.deliver(delivery)
        answer = self.vitrina.run(*arguments(delivery))
        assert answer.status == 1, answer.log
        return answer

    def plan(self) -> tuple[list[date], str]:
        """The days that are to be built, and the build's id."""
        plan = self.vitrina.ingest("plan", "orders")
        return [date.fromisoformat(day) for day in plan["days"]], str(plan["build_id"])

    def build(self) -> list[date]:
        """Build what the plan says, which must be what changed, and mark it."""
        days, build_id = self.plan()
        assert not self.exact_days or set(days) <= self.to_build
        if days:
            self.dbt(days)
            self.vitrina.ingest("mark", "orders", "--build", build_id)
        self.to_build.clear()
        return days

    def dbt(self, days: Collection[date] | None, *others: str) -> None:
        """Build the models for these days, or for all, without their tests."""
        self.vitrina.build(days, *others, domain="orders")

    def start_over(self) -> None:
        """An empty warehouse, in which nothing was landed."""
        for schema in ("raw", "raw_days", "staging", "ods", "ods_days", "core", "core_days"):
            self.vitrina.query(f"drop schema if exists {schema} cascade")
        self.vitrina.query("drop schema if exists marts cascade")
        self.vitrina.ingest("init")
        self.landed.clear()
        self.to_build.clear()
        self.places.clear()

    def expected(self) -> oracle.Tables:
        """What the oracle says of all that was landed."""
        return oracle.tables(self.landed, self.zone)

    def wrong(self) -> list[str]:
        """Where any table is not what the oracle says, and where the quarantine is not."""
        expected = self.expected()
        found = [
            f"{name}: {difference}"
            for name, table in CHECKED.items()
            for difference in oracle.differences(
                getattr(expected, name), self.vitrina.query(f"select * from {table}"), limit=5
            )
        ]
        rows = self.vitrina.query("select place from raw.quarantine where source = 'orders'")
        places = {row["place"] for row in rows}
        found += [f"{place}: not in quarantine" for place in sorted(self.places - places)]
        found += [f"{place}: in quarantine" for place in sorted(places - self.places)]
        return found

    def wrong_raw(self) -> list[str]:
        """Where a raw table is not what the oracle says of the slots in force."""
        expected = oracle.raw(self.landed, self.zone)
        return [
            f"{name}: {difference}"
            for name in RAW_TABLES
            for difference in oracle.differences(
                getattr(expected, name.partition(".")[2]),
                self.vitrina.query(f"select * from {name}"),
                limit=5,
            )
        ]

    def tables(self, *more: str) -> dict[str, list[str]]:
        """The content of all tables that must not depend on the way."""
        return self.vitrina.tables([*TABLES, *more])


def arguments(delivery: sandbox_delivery.Delivery) -> Sequence[str]:
    """The command that lands a delivery."""
    if delivery.date is None:
        return ("orders", "--mode", "report")
    return ("orders", "--date", str(delivery.date))


@contextmanager
def shopfront(
    vitrina: Vitrina, *, zone: ZoneInfo = oracle.MOSCOW, cohort: str = "1"
) -> Iterator[Shopfront]:
    """The servers around a Vitrina in which `init` was run."""
    with s3_server() as s3, reports_server(s3, cohort=cohort) as reports:
        settings = {
            **reports.environment(),
            **s3.environment(),
            "BUSINESS_TIMEZONE": zone.key,
            "REPORTS_POLL_SECONDS": "0.01",
            **vitrina.settings,
        }
        yield Shopfront(Vitrina(vitrina.outside, vitrina.project, settings), reports, zone)


def window(start: date, days: int) -> list[date]:
    """So many days from the first."""
    return [start + timedelta(days=number) for number in range(days)]
