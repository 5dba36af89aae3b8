"""What these tests put into the sources, and how they look at what was landed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import psycopg

from ingestion.days import DayRanges
from ingestion.ledger import LoadRecord
from ingestion.sinks import Sink, open_sink
from sandbox.dbt import environment
from sandbox.telemetry import TelemetryEvent, create_source, insert_events
from tests.support.vitrina import Answer, Vitrina

DAY = timedelta(days=1)
PATIENCE_SECONDS = 40.0
DEC = {number: date(2024, 12, number) for number in range(1, 32)}


def at(instant: str) -> datetime:
    """An instant in UTC."""
    read = datetime.fromisoformat(instant)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def client(
    client_id: object = "c-1", updated_at: str | None = "2024-12-05T10:00:00Z", **other: object
) -> dict[str, Any]:
    """A record of the CRM."""
    record = {"id": client_id, "segment": "smb", "country": "RU", "plan": "free"}
    return {**record, "created_at": None, "updated_at": updated_at, **other}


def event(event_ts: str | None, event_id: str | None = None, **other: Any) -> TelemetryEvent:
    """An event of client c-1."""
    made: dict[str, Any] = {
        "event_id": event_id,
        "client_id": "c-1",
        "event_type": "view",
        "duration_ms": 10,
        "status": "ok",
        "session_id": "s-1",
        "event_ts": at(event_ts) if event_ts else None,
        **other,
    }
    return cast(TelemetryEvent, made)


def noons(*numbers: int) -> list[TelemetryEvent]:
    """An event at noon UTC of each of these days of December 2024."""
    return [event(f"2024-12-{number:02d}T12:00:00", f"e-{number}") for number in numbers]


def december(*numbers: int) -> list[str]:
    """Days of December 2024 as commands print them."""
    return [str(DEC[number]) for number in numbers]


def having(vitrina: Vitrina, **settings: str) -> Vitrina:
    """The same with other settings; an empty one is not set."""
    return replace(vitrina, settings={**vitrina.settings, **settings})


def arrive(vitrina: Vitrina, events: Sequence[TelemetryEvent]) -> None:
    """New events in the telemetry database."""
    insert_events(vitrina.outside.telemetry_url, events)


def telemetry(vitrina: Vitrina, start: date, end: date | None = None) -> dict[str, Any]:
    """Land a window, or a day."""
    return vitrina.ingest(
        "telemetry", "--start-date", str(start), "--end-date", str(end or start + DAY)
    )


def at_source(vitrina: Vitrina, *statements: str) -> None:
    """Statements in the telemetry database."""
    with psycopg.connect(vitrina.outside.telemetry_url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def recreate_source(vitrina: Vitrina, **how: Any) -> None:
    """Make the source's table anew (see sandbox.telemetry.create_source)."""
    at_source(vitrina, "drop table telemetry_events")
    create_source(vitrina.outside.telemetry_url, **how)


def rows_by_day(vitrina: Vitrina) -> dict[str, int]:
    """How many events each landed day holds."""
    found = vitrina.query("select ds, count(*) as n from raw.telemetry_events group by ds")
    return {str(row["ds"]): row["n"] for row in found}


def quarantine(vitrina: Vitrina) -> list[dict[str, Any]]:
    """What was set aside."""
    return vitrina.query("select * from raw.quarantine order by quarantine_id")


def refused(vitrina: Vitrina, answer: Answer, status: int = 1) -> str:
    """Check that a landing failed and left nothing; returns what it said."""
    assert answer.status == status, answer.log
    assert answer.output == ""
    for table in ("crm_clients", "telemetry_events", "loads", "quarantine"):
        assert vitrina.query(f"select * from raw.{table}") == []
    return answer.log


@contextmanager
def sink_of(vitrina: Vitrina) -> Iterator[Sink]:
    """A connection of our own to the warehouse, as a load would have it."""
    with environment(vitrina.env):
        sink = open_sink(vitrina.engine)
    try:
        yield sink
    finally:
        sink.close()


def empty_load(source: str) -> LoadRecord:
    """A load that begins now and lands nothing."""
    return LoadRecord(source, None, 0, 0, DayRanges(), started_at=datetime.now(UTC))


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
