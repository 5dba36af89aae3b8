"""The order source of these tests: small files by hand, delivered by the sandbox's servers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from sandbox import delivery
from sandbox.delivery import Delivery
from sandbox.reports import ReportsServer
from sandbox.s3 import S3Server
from tests.ingestion.scene import DEC
from tests.support.vitrina import Answer, Vitrina

ORDERS = "user_order_log"
COLUMNS = (
    "id",
    "uniq_id",
    "date_time",
    "city_id",
    "city_name",
    "customer_id",
    "first_name",
    "last_name",
    "item_id",
    "item_name",
    "quantity",
    "payment_amount",
    "status",
)
RAW = (
    "raw.user_order_log",
    "raw.order_copies",
    "raw.customer_research",
    "raw.user_activity_log",
    "raw.price_log",
)
# The rule of the decisions, in SQL, on raw rows and on the copies alone.
WINNERS = """
select distinct on (order_id) order_id, slot_kind, slot_date, ds, {line} as line_no
from raw.{table}
where not (slot_kind = 'report' and ds in (
    select slot_date from raw.order_files
    where slot_kind = 'increment' and file = 'user_order_log'))
order by order_id, slot_kind = 'increment' desc, slot_date desc, {line} desc
"""


def line(uniq_id: str = "u-1", day: str = "2024-12-05", **cells: object) -> dict[str, object]:
    """An order line; a cell of None is left empty."""
    usual = {
        "id": 1,
        "uniq_id": uniq_id,
        "date_time": f"{day}T12:00:00",
        "city_id": 2,
        "city_name": "Ярославль",
        "customer_id": 7,
        "first_name": "Пётр",
        "last_name": "Сидоров",
        "item_id": 3,
        "item_name": "Ручка",
        "quantity": 2,
        "payment_amount": "90.50",
        "status": "shipped",
    }
    return {**usual, **cells}


def text_of(
    lines: Sequence[Mapping[str, object]], columns: Sequence[str] = COLUMNS, end: str = "\n"
) -> str:
    """A file of these lines."""
    made = io.StringIO()
    writer = csv.DictWriter(made, columns, extrasaction="ignore", lineterminator=end)
    writer.writeheader()
    writer.writerows(lines)
    return made.getvalue()


def file_of(*lines: Mapping[str, object], **how: Any) -> dict[str, bytes]:
    """The files of a delivery that has only orders."""
    return {ORDERS: text_of(lines, **how).encode()}


def increment(day: int, files: Mapping[str, bytes], *key: object) -> Delivery:
    """The increment of a day of December 2024."""
    return delivery.increment(DEC[day], files, *key)


def report(first: int, last: int, files: Mapping[str, bytes], *key: object) -> Delivery:
    """A report of days of December 2024, both inclusive."""
    return delivery.report(DEC[first], DEC[last], files, *key)


@dataclass(frozen=True)
class Shop:
    """A Vitrina whose order source the test holds."""

    vitrina: Vitrina
    reports: ReportsServer
    s3: S3Server

    def deliver(self, *deliveries: Delivery) -> None:
        """Have the source deliver these."""
        for each in deliveries:
            self.reports.deliver(each)

    def run(self, *arguments: str) -> Answer:
        """`python -m ingestion orders …`, whatever comes of it."""
        return self.vitrina.run("orders", *arguments)

    def land_report(self, *arguments: str) -> dict[str, Any]:
        """Land a new report."""
        return self.vitrina.ingest("orders", "--mode", "report", *arguments)

    def land(self, first: int, last: int | None = None, *arguments: str) -> dict[str, Any]:
        """Land the increments of days of December 2024, both inclusive."""
        end = DEC[last or first] + timedelta(1)
        return self.vitrina.ingest(
            "orders", "--start-date", str(DEC[first]), "--end-date", str(end), *arguments
        )

    def rows(self) -> list[dict[str, Any]]:
        """The landed order lines."""
        return self.vitrina.query(
            "select * from raw.user_order_log order by slot_kind desc, slot_date, line_no"
        )

    def winners(self) -> dict[str, tuple[object, ...]]:
        """The copy of each order that holds; by the raw rows and by the copies alone it is one."""
        found = [
            {row.pop("order_id"): tuple(row.values()) for row in self.vitrina.query(statement)}
            for statement in (
                WINNERS.format(table="user_order_log", line="line_no"),
                WINNERS.format(table="order_copies", line="last_line_no"),
            )
        ]
        assert found[0] == found[1]
        return found[0]

    def state(self) -> dict[str, list[str]]:
        """All that was landed, ids of loads and instants aside."""
        return {**self.vitrina.tables(RAW), "files": [str(row) for row in self.files()]}

    def files(self) -> list[dict[str, Any]]:
        """The files in force."""
        return self.vitrina.query(
            "select slot_kind, slot_date, file, delivery_id, url, etag, size_bytes, rows_landed,"
            " rows_quarantined, days from raw.order_files order by slot_kind, slot_date, file"
        )

    def reasons(self) -> list[tuple[int, str]]:
        """What was set aside: line and reason."""
        rows = self.vitrina.query("select place, reason from raw.quarantine order by quarantine_id")
        return [(int(row["place"].rpartition(":")[2]), row["reason"]) for row in rows]

    def refused(self, *arguments: str, status: int = 1) -> str:
        """Check that a landing fails and leaves everything as it was; returns what it said."""
        before = (self.state(), self.ledger())
        answer = self.run(*arguments)
        assert answer.status == status, answer.log
        assert answer.output == ""
        assert (self.state(), self.ledger()) == before
        return answer.log

    def forget(self) -> None:
        """Empty the warehouse."""
        if self.vitrina.clickhouse is not None:
            self.vitrina.clickhouse.empty()
        else:
            self.vitrina.query("drop schema raw, raw_days cascade")
        self.vitrina.ingest("init")

    @contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """A transaction of somebody else, open within the block."""
        url = self.vitrina.outside.postgres.url(self.vitrina.outside.warehouse)
        with psycopg.connect(url) as connection:
            connection.execute(statement.encode())
            yield
            connection.rollback()

    def is_waiting(self) -> bool:
        """Whether a load waits for a lock."""
        return bool(self.vitrina.query("select pid from pg_locks where not granted"))

    def ledger(self) -> list[dict[str, Any]]:
        """Loads and quarantine."""
        loads = self.vitrina.query("select load_id, days, changed from raw.loads order by load_id")
        return loads + self.vitrina.query("select * from raw.quarantine order by quarantine_id")
