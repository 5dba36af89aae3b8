"""The raw tables of a warehouse, written by hand: what the models make of them is the subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, LiteralString

import psycopg

from tests.support.vitrina import Vitrina

COPIES: LiteralString = """
    with touched as (
        select order_id from raw.order_copies
        where (slot_kind, slot_date) is not distinct from (%(kind)s, %(date)s)
            or slot_kind = 'report' and ds = %(date)s
    )
    select ds from raw.order_copies where order_id in (select order_id from touched)
    union select %(date)s::date where %(date)s::date is not null
"""
# What a hand-made line has where it says nothing else.
LINE = {"quantity": 1, "payment_amount": 100, "status": "shipped", "customer_id": "c"}


@dataclass(frozen=True)
class Warehouse:
    """Raw tables, and the models over them."""

    vitrina: Vitrina

    def land_day(self, day: date, events: Sequence[dict[str, Any]]) -> None:
        """Replace a day of raw.telemetry_events; an event without `event_ts` happened at noon UTC."""
        leaf = f"raw_days.telemetry_events_{day:%Y%m%d}"
        self.vitrina.query(f"drop table if exists {leaf}")
        if not events:
            return
        self.vitrina.query(
            f"create table {leaf} partition of raw.telemetry_events for values in ('{day}')"
        )
        for event in events:
            self._insert("telemetry_events", {"ds": day, "event_ts": f"{day} 12:00Z", **event})

    def serve(self, client: str, **version: Any) -> None:
        """Append a version of a client; the later call is the later one served."""
        columns = {"id": client, "_content_hash": str(version), "_payload": "{}", **version}
        self._insert("crm_clients", columns)

    def deliver(
        self,
        slot_date: date | None,
        lines: Sequence[Mapping[str, Any]],
        file: str = "user_order_log",
    ) -> set[date]:
        """Replace all order lines of a slot (None: the report); returns the days that this changes.

        A line has a `ds` and an `order_id`; without `date_time` it happened at noon UTC, and what
        else it does not say is in LINE.
        """
        slot = {
            "kind": "report" if slot_date is None else "increment",
            "date": slot_date,
            "file": file,
        }
        with psycopg.connect(self._url()) as connection:
            changed = {day for (day,) in connection.execute(COPIES, slot)}
            self._replace_slot(connection, slot, lines)
            changed |= {day for (day,) in connection.execute(COPIES, slot)}
        return changed

    def _replace_slot(
        self,
        connection: psycopg.Connection,
        slot: Mapping[str, Any],
        lines: Sequence[Mapping[str, Any]],
    ) -> None:
        for table in "user_order_log", "order_copies", "order_files":
            connection.execute(
                f"delete from raw.{table} where (slot_kind, slot_date)"
                " is not distinct from (%(kind)s, %(date)s)".encode(),
                slot,
            )
        for day in {line["ds"] for line in lines}:
            connection.execute(
                f"create table if not exists raw_days.user_order_log_{day:%Y%m%d}"
                f" partition of raw.user_order_log for values in ('{day}')".encode()
            )
        for line_no, line in enumerate(lines, 1):
            row = {
                "slot_kind": slot["kind"],
                "slot_date": slot["date"],
                "line_no": line_no,
                "uniq_id": line["order_id"],
                "date_time": f"{line['ds']} 12:00Z",
                **LINE,
                **line,
            }
            _insert(connection, "user_order_log", row)
        connection.execute(
            "insert into raw.order_copies (order_id, ds, slot_kind, slot_date, last_line_no)"
            " select order_id, ds, slot_kind, slot_date, max(line_no) from raw.user_order_log"
            " where (slot_kind, slot_date) is not distinct from (%(kind)s, %(date)s)"
            " group by order_id, ds, slot_kind, slot_date",
            slot,
        )
        connection.execute(
            "insert into raw.order_files (slot_kind, slot_date, file, delivery_id, url, etag,"
            " size_bytes, rows_landed, rows_quarantined, days, landed_at)"
            " values (%(kind)s, %(date)s, %(file)s, 'id', 'url', 'etag', 0, 0, 0, '{}', now())",
            slot,
        )

    def _insert(self, table: str, row: Mapping[str, Any]) -> None:
        with psycopg.connect(self._url()) as connection:
            _insert(connection, table, row)

    def _url(self) -> str:
        outside = self.vitrina.outside
        return outside.postgres.url(outside.warehouse)

    def clear(self) -> None:
        """Take away all rows, and what was built of them."""
        self.vitrina.query(
            "truncate raw.telemetry_events, raw.crm_clients,"
            " raw.user_order_log, raw.order_copies, raw.order_files;"
            "drop table if exists ods.ods_telemetry, marts.dm_client_telemetry, ods.ods_orders,"
            " core.d_customer, core.d_item, core.d_city, core.f_sales,"
            " marts.f_customer_retention, marts.f_customer_retention_by_item"
        )

    def build(self, *days: date, domain: str = "telemetry") -> None:
        """Build the models of a domain for these days, or for all."""
        self.vitrina.build(days or None, domain=domain)


def _insert(connection: psycopg.Connection, table: str, row: Mapping[str, Any]) -> None:
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    statement = f"insert into raw.{table} ({names}) values ({places})"
    connection.execute(statement.encode(), list(row.values()))
