"""The whole outside world at once, on loopback: a warehouse, a telemetry database, a CRM.

`python -m sandbox.outside --state FILE` holds it as a process of its own (`make demo KEEP=1`).
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

from sandbox import flights
from sandbox.crm import CrmServer, Settings, crm_server
from sandbox.postgres import PostgresServer, postgres_server
from sandbox.telemetry import TelemetryEvent, create_source, insert_events
from sandbox.world import World

DATA_SETS = ("world", "flights", "recent")
DAYS = 7
WORLD = World(seed=7, start=date(2024, 12, 2), days=DAYS, clients=400, events_per_day=6_000)
# The week of the February 2013 blizzard: on the 8th and 9th most flights were cancelled.
FLIGHTS_START = date(2013, 2, 4)


@dataclass(frozen=True)
class DataSet:
    """What the sources hold, and the business days [start, end) that it is about."""

    start: date
    end: date
    timezone: str
    records: Iterable[dict[str, Any]]
    events: Iterable[TelemetryEvent]
    event_id: bool


def data_set(name: str) -> DataSet:
    """A week: of the made-up world as seen at its end, of New York's real flights, or (`recent`) of
    the made-up world up to now, today's hours included."""
    if name == "flights":
        end = FLIGHTS_START + timedelta(days=DAYS)
        return DataSet(
            start=FLIGHTS_START,
            end=end,
            timezone=flights.TIMEZONE,
            records=flights.airlines(),
            events=flights.flights(FLIGHTS_START, end),
            event_id=False,
        )
    if name == "recent":
        today = datetime.now(ZoneInfo(World.timezone)).date()
        world = replace(WORLD, start=today - timedelta(days=DAYS), days=DAYS + 1)
        seen = world.until(datetime.now(UTC))
        return DataSet(world.start, today, world.timezone, seen.records, seen.events, event_id=True)
    seen = WORLD.until(WORLD.midnight(DAYS))
    return DataSet(WORLD.start, WORLD.end, WORLD.timezone, seen.records, seen.events, event_id=True)


@dataclass(frozen=True)
class Outside:
    """The running servers, with the names of the two databases."""

    postgres: PostgresServer = field(repr=False)
    crm: CrmServer = field(repr=False)
    warehouse: str
    telemetry: str

    @property
    def telemetry_url(self) -> str:
        """Where the telemetry database is."""
        return self.postgres.url(self.telemetry)

    def environment(self) -> dict[str, str]:
        """The settings by which ingestion and dbt find all of it."""
        return {
            "VITRINA_TARGET": "postgres",
            **self.postgres.environment(self.warehouse),
            **self.crm.environment(),
            "TELEMETRY_DB_URL": self.telemetry_url,
        }


@contextmanager
def outside(
    postgres: PostgresServer,
    *,
    name: str = "",
    crm: Settings | None = None,
    event_id: bool = True,
    types: Mapping[str, str] | None = None,
) -> Iterator[Outside]:
    """Empty sources and an empty warehouse on a running server; the databases go at the end.

    Without a `name` they are called the same every time, one after the other: dbt's parsed project
    holds the database's name. `types` are those of the telemetry table's columns.
    """
    warehouse = postgres.create_database(f"warehouse{name}")
    telemetry = postgres.create_database(f"telemetry{name}")
    try:
        create_source(postgres.url(telemetry), event_id=event_id, types=types)
        with crm_server(settings=crm) as server:
            yield Outside(postgres, server, warehouse, telemetry)
    finally:
        for database in (warehouse, telemetry):
            postgres.drop_database(database)


@contextmanager
def filled_outside(data: DataSet) -> Iterator[Outside]:
    """Servers of their own that hold a data set. The CRM limits its rate and fails now and then."""
    balks = Settings(page_size=100, rate_limit_every=5, failure_every=7, retry_after=1)
    with postgres_server() as server, outside(server, crm=balks, event_id=data.event_id) as world:
        world.crm.serve(data.records)
        insert_events(world.telemetry_url, data.events)
        yield world


def is_free(file: IO[str]) -> bool:
    """Whether nobody holds a sandbox with this state file any more."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> int:
    """Hold a filled outside until SIGTERM; its environment goes to a file once it is up."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.outside", description=main.__doc__)
    parser.add_argument("--data", choices=DATA_SETS, default="world")
    parser.add_argument("--state", type=Path, required=True)
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    data = data_set(options.data)
    with filled_outside(data) as world:
        environment = {**world.environment(), "BUSINESS_TIMEZONE": data.timezone}
        state = {"pid": os.getpid(), "environment": environment}
        made = options.state.with_suffix(".new")
        made.touch(mode=0o600)  # it holds passwords
        made.write_text(json.dumps(state))
        with made.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            made.replace(options.state)
            try:
                done.wait()
            finally:
                options.state.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
