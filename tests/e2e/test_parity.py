"""The same landed inputs on each engine, every model built: the same tables, cell by cell."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import Project, Run
from sandbox.feed import FeedServer
from sandbox.social import SocialApp
from sandbox.telemetry import insert_events
from sandbox.world import World
from tests.ingestion.scene import having
from tests.models.raw import Warehouse
from tests.models.shop import random_lines
from tests.support.vitrina import AUDIT, Vitrina

WORLD = World(seed=23, start=date(2024, 12, 2), days=7, clients=80, events_per_day=800)
APP = SocialApp(seed=23, start=WORLD.start, days=7, users=50)
RELATIVE = 1e-9
# What a column of PostgreSQL may be on ClickHouse; a model that declares a type has the first one.
TYPES = {
    "text": ("String",),
    "boolean": ("Bool",),
    "smallint": ("Int16", "Int8", "UInt8"),
    "integer": ("Int32", "Int16", "UInt16", "Int8", "UInt8"),
    "bigint": ("Int64", "UInt64"),
    "double precision": ("Float64",),
    "date": ("Date32",),
    "timestamp with time zone": ("DateTime64(6, 'UTC')",),
}


@dataclass(frozen=True)
class Twins:
    """One warehouse on PostgreSQL, and another on ClickHouse that has its raw tables."""

    vitrina: Vitrina
    server: ClickhouseServer = field(repr=False)
    client: Client = field(repr=False)
    project: Project

    def copy_raw(self) -> None:
        """Give ClickHouse the raw tables of PostgreSQL, types and nulls included."""
        self.client.command("create database if not exists raw")
        tables = self.vitrina.query(
            "select relname as name from pg_class where relnamespace = 'raw'::regnamespace"
            " and relkind in ('r', 'p')"
        )
        for name in sorted(table["name"] for table in tables):
            self._copy(name)

    def _copy(self, name: str) -> None:
        columns = self.vitrina.query(
            "select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as filled"
            " from pg_attribute where attrelid = to_regclass(%s) and attnum > 0"
            " and not attisdropped order by attnum",
            f"raw.{name}",
        )
        types = [column["type"] for column in columns]
        kept = [
            of_type if column["filled"] else f"Nullable({of_type})"
            for column, of_type in zip(columns, map(wanted_type, types), strict=True)
        ]
        definitions = ", ".join(f"`{c['name']}` {t}" for c, t in zip(columns, kept, strict=True))
        by_day = "partition by ds" if columns[0]["name"] == "ds" else ""
        self.client.command(f"drop table if exists raw.`{name}` sync")
        self.client.command(
            f"create table raw.`{name}` ({definitions}) engine = MergeTree {by_day} order by tuple()"
        )
        rows = [list(row.values()) for row in self.vitrina.query(f'select * from raw."{name}"')]
        if rows:
            self.client.insert(
                name,
                rows,
                database="raw",
                column_names=[column["name"] for column in columns],
                settings={"max_partitions_per_insert_block": 0},
            )

    def dbt(self, *arguments: str, days: list[date] | None = None) -> list[Run]:
        """A command of dbt on both engines, which has to succeed."""
        window = {"VITRINA_DAYS": ",".join(map(str, days))} if days else {}
        there = {**self.vitrina.env, **self.server.environment(), "VITRINA_TARGET": "clickhouse"}
        done = [
            self.vitrina.dbt(*arguments, days=days),
            self.project.invoke(arguments, {**there, **window}),
        ]
        for run in done:
            assert run.failures() == []
            assert run.success
        return done

    def models(self) -> list[str]:
        """The names of all models and seeds with their schemas."""
        manifest = self.project.manifest
        assert manifest is not None
        return sorted(
            f"{node.schema}.{node.alias}"
            for node in manifest.nodes.values()
            if str(node.resource_type) in ("model", "seed")
        )

    def differences(self) -> list[str]:
        """Where a table, a type or a cell is not the same; empty if none is."""
        return [line for name in self.models() for line in self._of_one(name)]

    def _of_one(self, name: str) -> Iterator[str]:
        here = self.vitrina.query(
            "select attname as name, format_type(atttypid, atttypmod) as type from pg_attribute"
            " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            name,
        )
        there = self.client.query(f"describe table {name}").result_rows
        if [c["name"] for c in here] != [row[0] for row in there]:
            yield f"{name}: columns {here} and {there}"
            return
        for column, row in zip(here, there, strict=True):
            if not is_of_type(row[1], column["type"]):
                yield f"{name}.{column['name']}: {column['type']} and {row[1]}"
        kept = [c["name"] for c in here if c["name"] not in AUDIT]
        chosen = ", ".join(f'"{column}"' for column in kept)
        rows = [tuple(row.values()) for row in self.vitrina.query(f"select {chosen} from {name}")]
        others = [
            tuple(row) for row in self.client.query(f"select {chosen} from {name}").result_rows
        ]
        if len(rows) != len(others):
            yield f"{name}: {len(rows)} rows and {len(others)}"
            return
        for row, other in zip(
            sorted(rows, key=sort_key), sorted(others, key=sort_key), strict=True
        ):
            if not all(map(is_same, row, other)):
                yield f"{name}: {row} and {other}"


def wanted_type(postgres: str) -> str:
    """The type of ClickHouse that a declared type of PostgreSQL stands for."""
    if decimal := re.fullmatch(r"numeric\((\d+),(\d+)\)", postgres):
        return f"Decimal({decimal[1]}, {decimal[2]})"
    return TYPES[postgres][0]


def is_of_type(clickhouse: str, postgres: str) -> bool:
    """Whether a type of ClickHouse, whatever it is wrapped in, is one of PostgreSQL's."""
    bare = re.sub(r"^LowCardinality\((.*)\)$", r"\1", clickhouse)
    bare = re.sub(r"^Nullable\((.*)\)$", r"\1", bare)
    if postgres == "numeric":
        return bare.startswith("Decimal(")
    return bare == wanted_type(postgres) or bare in TYPES.get(postgres, ())


def comparable(value: Any) -> Any:
    """A value as both drivers give it."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def sort_key(row: tuple[Any, ...]) -> tuple[str, ...]:
    """An order in which floats, which may differ in the last bit, come last and rounded."""
    values = [comparable(value) for value in row]
    exact = [repr(value) for value in values if not isinstance(value, float | Decimal)]
    return (*exact, *(f"{value:.6g}" for value in values if isinstance(value, float | Decimal)))


def is_same(value: Any, other: Any) -> bool:
    """Whether two cells are equal: nulls only to nulls, floats to a billionth."""
    value, other = comparable(value), comparable(other)
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=RELATIVE)
    # A decimal is never equal to a float here, nor True to 1.
    alike = isinstance(value, type(other)) or isinstance(other, type(value))
    return bool(value == other) and (value is None) == (other is None) and alike


@pytest.fixture
def twins(
    vitrina: Vitrina, clickhouse: ClickhouseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twins]:
    """Right after `init`, with nothing landed."""
    client = clickhouse_connect.get_client(
        host=clickhouse.host,
        port=clickhouse.port,
        username=clickhouse.user,
        password=clickhouse.password,
        autogenerate_session_id=False,
    )
    # dbt remembers for the life of its process that this one is there.
    client.command("create database if not exists marts")
    try:
        project = Project(target_path=tmp_path_factory.mktemp("parity"))
        yield Twins(vitrina, clickhouse, client, project)
    finally:
        client.close()
        clickhouse.empty()


def show_world(vitrina: Vitrina, seen_until: int) -> None:
    """Let the sources of telemetry have the world up to a day, and land it."""
    sight = WORLD.until(WORLD.midnight(seen_until))
    vitrina.outside.crm.serve(sight.records)
    insert_events(vitrina.outside.telemetry_url, sight.events)
    vitrina.land(WORLD.start, WORLD.end)


def deliver(vitrina: Vitrina, *slots: date | None, seed: int) -> set[date]:
    """Deliver orders of random lines, over a year's end; returns the days that this changes."""
    warehouse, chance = Warehouse(vitrina), random.Random(seed)
    days = [date(2024, 12, 29) + timedelta(days=n) for n in range(5)]
    changed = set()
    for slot in slots:
        changed |= warehouse.deliver(slot, random_lines(chance, days, orders=40))
    return changed


def show_app(vitrina: Vitrina, feed: FeedServer, *days: date) -> None:
    """Let the social app have the rows of these days, once more if it has them, and land them."""
    for day in days:
        feed.insert("feed_actions", APP.actions(day))
        feed.insert("message_actions", APP.messages(day))
        having(vitrina, FEED_CLICKHOUSE_URL=feed.url).ingest("feed", "--date", str(day))


def test_every_model_is_the_same_on_both_engines(twins: Twins, feed: FeedServer) -> None:
    """Built at once, with all tests; then built anew for a window of changed days."""
    show_world(twins.vitrina, 6)
    show_app(twins.vitrina, feed, *(APP.start + timedelta(days=n) for n in (0, 1, 2, 4)))
    deliver(twins.vitrina, None, date(2024, 12, 30), date(2025, 1, 1), seed=1)
    twins.copy_raw()
    twins.dbt("build")
    assert twins.differences() == []
    for mart in "dm_client_telemetry", "f_customer_retention_by_item", "activity_slices":
        assert twins.client.query(f"select count() from marts.{mart}").result_rows[0][0] > 5

    days = [WORLD.start + timedelta(days=n) for n in (1, 3, 4, 9)]
    empty_days(twins.vitrina, days[:1])
    twins.vitrina.query(
        "update raw.telemetry_events set duration_ms = null, status = 'error' where ds = %s",
        days[1],
    )
    twins.vitrina.query(
        "insert into raw.telemetry_events select * from raw.telemetry_events where ds = %s", days[2]
    )
    show_app(twins.vitrina, feed, days[0], days[1])
    days += deliver(twins.vitrina, date(2024, 12, 31), date(2025, 1, 1), seed=2)
    twins.copy_raw()
    twins.dbt("run", days=days)
    assert twins.differences() == []


def empty_days(vitrina: Vitrina, days: list[date]) -> None:
    """Take away all events of these days."""
    for day in days:
        vitrina.query("delete from raw.telemetry_events where ds = %s", day)


def test_every_model_is_the_same_with_nothing_landed(twins: Twins) -> None:
    twins.copy_raw()
    twins.dbt("build")
    assert twins.differences() == []
