"""The raw tables of a warehouse, written by hand: what the models make of them is the subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tests.support.vitrina import Vitrina


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

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        self.vitrina.query(f"insert into raw.{table} ({names}) values ({places})", *row.values())

    def clear(self) -> None:
        """Take away all rows, and what was built of them."""
        self.vitrina.query(
            "truncate raw.telemetry_events, raw.crm_clients;"
            "drop table if exists ods.ods_telemetry, marts.dm_client_telemetry"
        )

    def build(self, *days: date) -> None:
        """Build the models for these days, or for all."""
        self.vitrina.build(days or None)
