"""The whole outside world at once, on loopback: a warehouse, a telemetry database, a CRM, the order
source, a report API over S3, and a social app's ClickHouse.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

from sandbox import flights, reports
from sandbox.clickhouse import ClickhouseServer, clickhouse_server
from sandbox.crm import CrmServer, Settings, crm_server
from sandbox.delivery import Delivery
from sandbox.feed import FeedServer, feed_server
from sandbox.postgres import PostgresServer, postgres_server
from sandbox.reports import ReportsServer, reports_server
from sandbox.s3 import S3Server, s3_server
from sandbox.shop import Shop
from sandbox.social import SocialApp
from sandbox.telemetry import TelemetryEvent, create_source, insert_events
from sandbox.world import Sight, World

DATA_SETS = ("world", "flights", "recent")
TARGETS = ("postgres", "clickhouse")
DAYS = 7
WORLD = World(seed=7, start=date(2024, 12, 2), days=DAYS, clients=400, events_per_day=6_000)
# The week of the February 2013 blizzard: on the 8th and 9th most flights were cancelled.
FLIGHTS_START = date(2013, 2, 4)
# How the APIs are to those who are not tests: they limit their rate and fail now and then.
CRM_BALKS = Settings(page_size=100, rate_limit_every=5, failure_every=7, retry_after=1)
REPORTS_BALK = reports.Settings(running_looks=1, failure_every=7, retry_after=1)
COHORT = "3"  # s3:// urls, and one file goes by another name
# Six weeks in a report and one in increments: the one in which the year ends.
REPORT_DAYS = 6 * 7
SHOP = Shop(
    seed=7,
    start=date(2024, 11, 18),
    days=REPORT_DAYS + DAYS,
    customers=900,
    orders_per_day=150,
)
APP = SocialApp(seed=7, start=WORLD.start, days=DAYS, users=400)


@dataclass(frozen=True)
class Orders:
    """What the order source delivers: a report of the days [start, until), increments up to `end`."""

    start: date
    until: date
    end: date
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True)
class DataSet:
    """What the sources hold, and the business days [start, end) that the telemetry is about.

    `orders` is None where there is no shop, `app` where there is no social app.
    """

    start: date
    end: date
    timezone: str
    records: Iterable[dict[str, Any]]
    events: Iterable[TelemetryEvent]
    event_id: bool
    orders: Orders | None = None
    app: SocialApp | None = None


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
        shop = replace(SHOP, start=today - timedelta(days=SHOP.days))
        app = replace(APP, start=today - timedelta(days=DAYS))
        return _data_set(world, today, seen, shop, app)
    return _data_set(WORLD, WORLD.end, WORLD.until(WORLD.midnight(DAYS)), SHOP, APP)


def _data_set(world: World, end: date, seen: Sight, shop: Shop, app: SocialApp) -> DataSet:
    return DataSet(
        start=world.start,
        end=end,
        timezone=world.timezone,
        records=seen.records,
        events=seen.events,
        event_id=True,
        orders=_orders(shop),
        app=app,
    )


def _orders(shop: Shop) -> Orders:
    """All days are found: those that come late have come by now, which their version 1 says."""
    until = shop.start + timedelta(days=REPORT_DAYS)
    increments = shop.increments(until, shop.end, version=1)
    return Orders(shop.start, until, shop.end, (shop.report(until), *increments))


class OrderServers:
    """The order source's servers, started when they are first asked for: most tests need none."""

    def __init__(self, stack: ExitStack, cohort: str, settings: reports.Settings | None) -> None:
        """Servers that end with the stack."""
        self._stack = stack
        self._cohort = cohort
        self._settings = settings

    @cached_property
    def s3(self) -> S3Server:
        """Where the files are."""
        return self._stack.enter_context(s3_server())

    @cached_property
    def reports(self) -> ReportsServer:
        """The API."""
        return self._stack.enter_context(
            reports_server(self.s3, cohort=self._cohort, settings=self._settings)
        )

    def environment(self) -> dict[str, str]:
        """The settings of what was started."""
        started = [self.__dict__[name] for name in ("s3", "reports") if name in self.__dict__]
        return {name: value for each in started for name, value in each.environment().items()}


@dataclass(frozen=True)
class Outside:
    """The running servers, with the names of the two databases.

    With a `clickhouse` the warehouse is there, and the one of PostgreSQL stays empty.
    """

    postgres: PostgresServer = field(repr=False)
    crm: CrmServer = field(repr=False)
    warehouse: str
    telemetry: str
    orders: OrderServers = field(repr=False)
    feed: FeedServer | None = None
    clickhouse: ClickhouseServer | None = field(default=None, repr=False)  # as the warehouse

    @property
    def s3(self) -> S3Server:
        """Where the order source's files are; asking starts it."""
        return self.orders.s3

    @property
    def reports(self) -> ReportsServer:
        """The order source's API; asking starts it. From then on `environment` names both."""
        return self.orders.reports

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
            **self.orders.environment(),
            **({"FEED_CLICKHOUSE_URL": self.feed.url} if self.feed else {}),
            **self._clickhouse(),
        }

    def _clickhouse(self) -> dict[str, str]:
        if self.clickhouse is None:
            return {}
        return {"VITRINA_TARGET": "clickhouse", **self.clickhouse.environment()}


@contextmanager
def outside(
    postgres: PostgresServer,
    *,
    name: str = "",
    crm: Settings | None = None,
    event_id: bool = True,
    types: Mapping[str, str] | None = None,
    cohort: str = reports.COHORT,
    reports_settings: reports.Settings | None = None,
) -> Iterator[Outside]:
    """Empty sources and an empty warehouse on a running server; the databases go at the end.

    Without a `name` they are called the same every time, one after the other: dbt's parsed project
    holds the database's name. `types` are those of the telemetry table's columns. The servers of
    the order source start when they are asked for; `cohort` says how they name files.
    """
    warehouse = postgres.create_database(f"warehouse{name}")
    telemetry = postgres.create_database(f"telemetry{name}")
    try:
        create_source(postgres.url(telemetry), event_id=event_id, types=types)
        with crm_server(settings=crm) as server, ExitStack() as stack:
            orders = OrderServers(stack, cohort, reports_settings)
            yield Outside(postgres, server, warehouse, telemetry, orders)
    finally:
        for database in (warehouse, telemetry):
            postgres.drop_database(database)


@contextmanager
def filled_outside(data: DataSet, target: str = TARGETS[0]) -> Iterator[Outside]:
    """Servers of their own that hold a data set. The APIs limit their rate and fail now and then.

    `target` is the warehouse's engine.
    """
    with (
        postgres_server() as server,
        outside(
            server,
            crm=CRM_BALKS,
            event_id=data.event_id,
            cohort=COHORT,
            reports_settings=REPORTS_BALK,
        ) as world,
        ExitStack() as stack,
    ):
        world.crm.serve(data.records)
        insert_events(world.telemetry_url, data.events)
        if data.orders is not None:
            for delivery in data.orders.deliveries:
                world.reports.deliver(delivery)
        if data.app is not None or target == "clickhouse":
            clickhouse = stack.enter_context(clickhouse_server())
            if target == "clickhouse":
                world = replace(world, clickhouse=clickhouse)
            if data.app is not None:
                feed = stack.enter_context(feed_server(clickhouse))
                feed.insert("feed_actions", data.app.all_actions())
                feed.insert("message_actions", data.app.all_messages())
                world = replace(world, feed=feed)
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
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0])
    parser.add_argument("--state", type=Path, required=True)
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    data = data_set(options.data)
    with filled_outside(data, options.target) as world:
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
