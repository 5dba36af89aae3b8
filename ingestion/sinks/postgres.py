"""PostgreSQL as the warehouse.

A load is one transaction. A day of events is loaded into a new leaf table by binary `COPY`, without
indexes or locks that a reader could notice, and takes the old leaf's place at the end; the ledger's
row is written last, under a lock, so that load ids grow in the order of the commits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import LiteralString
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row
from xxhash import xxh3_128

from ingestion.days import DayRanges, Window
from ingestion.errors import SinkError
from ingestion.ledger import Build, LandedDay, LoadRecord
from ingestion.settings import PostgresSettings, read_settings
from ingestion.sinks import BulkFormat, DeliveredFile, LandedFile, Quarantined, Slot, Version
from ingestion.sinks._postgres_files import FileLoader, create_found, keep_found
from ingestion.sinks._postgres_tables import LEAVES, RAW, TYPES, create
from ingestion.tables import (
    DayTable,
    FileTable,
    RawTable,
    VersionTable,
)

log = logging.getLogger(__name__)

SCHEMAS = (RAW, LEAVES, "staging", "ods", "core", "marts")
SCHEMA_VERSION = 1
# A leaf that is dropped takes a lock for each object that belongs to it, and the server has room for
# so many only. Beyond this number of days a load sets old leaves aside, and they are dropped a few
# at a time when it has been committed.
MANY_DAYS = 200
RETIRED = "__old_"
RETIRED_AT_ONCE = 100
RETIRED_WAIT = "5s"

COPY_FORMATS: dict[BulkFormat, LiteralString] = {"pgcopy": "binary", "tsv": "text"}

# `cursor`, `days` and `changed` are JSON as text: only landing reads them, on every engine alike.
LEDGER = """
create table if not exists raw.schema_versions (
    version integer primary key,
    applied_at timestamptz not null default now()
);
create table if not exists raw.settings (
    name text primary key,
    value text not null
);
create table if not exists raw.loads (
    load_id bigint generated always as identity primary key,
    source text not null,
    window_start date,
    window_end date,
    cursor text not null,
    days text not null,
    changed text not null,
    rows_landed bigint not null,
    rows_quarantined bigint not null,
    started_at timestamptz not null,
    finished_at timestamptz not null
);
create table if not exists raw.builds (
    build_id bigint generated always as identity primary key,
    domain text not null,
    load_id bigint not null,
    days text not null,
    planned_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    is_void boolean not null default false
);
create table if not exists raw.quarantine (
    quarantine_id bigint generated always as identity primary key,
    source text not null,
    place text not null,
    payload text not null,
    encoding text not null,
    reason text not null,
    occurrence bigint not null,
    quarantined_at timestamptz not null default clock_timestamp()
);
create unique index if not exists quarantine_once
    on raw.quarantine (source, place, reason, encoding, md5(payload), occurrence);
create table if not exists raw.outbox (
    message_key text primary key,
    recipient text not null,
    body text not null,
    attempts integer not null default 0,
    last_error text,
    created_at timestamptz not null default clock_timestamp(),
    sent_at timestamptz
);
comment on table raw.settings is 'What all that was landed has in common: the zone in which days were cut.';
comment on table raw.loads is 'The ledger: a row a finished load, numbered in the order of the commits.';
comment on table raw.builds is 'Planned and finished builds: which days, up to which load.';
comment on table raw.quarantine is 'What landing could not use, with its reason; never dropped.';
comment on table raw.outbox is 'Messages to people, each sent once whatever is retried.';
"""


def connect() -> PostgresSink:
    """Connect as the `POSTGRES_*` settings say. Raises SinkError when the server does not answer."""
    settings = read_settings(PostgresSettings)
    try:
        connection = psycopg.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password.get_secret_value(),
            dbname=settings.db,
            autocommit=True,
            connect_timeout=10,
            application_name="vitrina ingestion",
            # Whatever the database's defaults are: in other zones Python has no name for instants
            # at the ends of its calendar, in other styles the driver can't read them, and under
            # stricter isolation a load that waited would not see what it waited for.
            options="-c timezone=UTC -c datestyle=ISO"
            " -c default_transaction_isolation=read\\ committed",
        )
    except psycopg.Error as error:
        where = f"{settings.user}@{settings.host}:{settings.port}/{settings.db}"
        raise SinkError(f"the warehouse {where} does not answer: {error}".strip()) from None
    return PostgresSink(connection)


class PostgresSink:
    """One autocommitting connection; a load opens a transaction on it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def init(self, tables: Iterable[RawTable]) -> None:
        """Make schemas, raw tables, ledger and outbox. Idempotent; additive for new columns.

        Raises SinkError when a newer Vitrina made them, or a column has another type.
        """
        with _told_apart(), self._connection.transaction():
            _lock(self._connection, "init")
            for schema in SCHEMAS:
                # IF NOT EXISTS still asks for the right to create, which a plain user may lack.
                if not _exists(self._connection, "pg_namespace", "nspname", schema):
                    self._connection.execute(
                        sql.SQL("create schema if not exists {}").format(sql.Identifier(schema))
                    )
            self._connection.execute(LEDGER)
            newest = self._connection.execute(
                "select coalesce(max(version), 0) from raw.schema_versions"
            ).fetchone()
            if newest is not None and newest[0] > SCHEMA_VERSION:
                raise SinkError(
                    f"the raw schema has version {newest[0]}, this Vitrina knows {SCHEMA_VERSION}: "
                    "update Vitrina"
                )
            for table in tables:
                create(self._connection, table)
            self._connection.execute(
                "insert into raw.schema_versions (version) values (%s) on conflict do nothing",
                [SCHEMA_VERSION],
            )

    @contextmanager
    def load(self, source: str) -> Iterator[PostgresLoad]:
        """One transaction that holds the lock of this source."""
        with _told_apart(), self._connection.transaction():
            _lock(self._connection, f"load {source}")
            yield PostgresLoad(self._connection, source)
        self._drop_retired()

    def _drop_retired(self) -> None:
        """Drop what a load of many days has set aside, this one or one that was killed then.

        A reader can still be at one of them: what is left is dropped by the next load.
        """
        with _told_apart():
            names = [
                name
                for (name,) in self._connection.execute(
                    "select relname from pg_class where relnamespace = to_regnamespace(%s)"
                    " and relkind = 'r' and strpos(relname, %s) > 0 order by 1",
                    [LEAVES, RETIRED],
                )
            ]
            for start in range(0, len(names), RETIRED_AT_ONCE):
                tables = sql.SQL(", ").join(
                    sql.Identifier(LEAVES, name) for name in names[start : start + RETIRED_AT_ONCE]
                )
                try:
                    with self._connection.transaction():
                        self._connection.execute(
                            "select set_config('lock_timeout', %s, true)", [RETIRED_WAIT]
                        )
                        self._connection.execute(sql.SQL("drop table if exists {}").format(tables))
                except psycopg.errors.LockNotAvailable:
                    log.info("old leaves are still read: the next load drops them")
                    return

    def loads(self, sources: Iterable[str]) -> list[LoadRecord]:
        with _told_apart():
            return _loads(self._connection, list(sources))

    def builds(self, domain: str) -> list[Build]:
        with _told_apart(), self._connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                "select build_id, load_id, days, is_void, finished_at is not null as finished"
                " from raw.builds where domain = %s order by build_id",
                [domain],
            )
            return [
                Build(
                    domain=domain,
                    load_id=row["load_id"],
                    days=tuple(date.fromisoformat(day) for day in json.loads(row["days"])),
                    build_id=row["build_id"],
                    finished=row["finished"],
                    void=row["is_void"],
                )
                for row in cursor
            ]

    def plan_build(self, build: Build) -> int:
        with _told_apart(), self._connection.transaction():
            _lock(self._connection, f"plan {build.domain}")
            newest = max(self.builds(build.domain), key=lambda b: b.build_id, default=None)
            is_open = newest is not None and not newest.finished and not newest.void
            if newest and is_open and (newest.days, newest.load_id) == (build.days, build.load_id):
                return newest.build_id
            row = self._connection.execute(
                "insert into raw.builds (domain, load_id, days) values (%s, %s, %s)"
                " returning build_id",
                [build.domain, build.load_id, json.dumps([str(day) for day in build.days])],
            ).fetchone()
            assert row is not None
            return int(row[0])

    def finish_build(self, build_id: int) -> None:
        with _told_apart(), self._connection.transaction():
            self._connection.execute(
                "update raw.builds set finished_at = clock_timestamp()"
                " where build_id = %s and finished_at is null",
                [build_id],
            )
            self._connection.execute(
                "update raw.builds set is_void = true where finished_at is null and domain ="
                " (select domain from raw.builds where build_id = %s)",
                [build_id],
            )

    def close(self) -> None:
        self._connection.close()


class PostgresLoad:
    """A load in progress, inside its transaction."""

    bulk_format: BulkFormat = "pgcopy"

    def __init__(self, connection: psycopg.Connection, source: str) -> None:
        self._connection = connection
        self._source = source
        self._swaps: dict[tuple[str, date], int] = {}
        self._files = FileLoader(connection, source, self._swaps)

    def loads(self) -> list[LoadRecord]:
        return _loads(self._connection, [self._source])

    def business_timezone(self, wanted: str) -> str:
        self._connection.execute(
            "insert into raw.settings (name, value) values ('business_timezone', %s)"
            " on conflict do nothing",
            [wanted],
        )
        row = self._connection.execute(
            "select value from raw.settings where name = 'business_timezone'"
        ).fetchone()
        assert row is not None
        return str(row[0])

    def replace_day(
        self,
        table: DayTable,
        day: date,
        stream: Iterable[bytes],
        before: LandedDay | None,
        bulk_format: BulkFormat | None = None,
    ) -> LandedDay:
        """Load a new leaf; `record` puts it in the place of the day's old one."""
        names = _leaf_names(table.name, day)
        self._execute(
            # `ds` is a default and not in the stream.
            "create table {new} (like {parent} including constraints);"
            "alter table {new} alter column ds set default {day}",
            names,
        )
        digest = xxh3_128()
        copy_in = sql.SQL("copy {} ({}) from stdin (format {})").format(
            names["new"],
            sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns),
            sql.SQL(COPY_FORMATS[bulk_format or self.bulk_format]),
        )
        with self._connection.cursor() as cursor:
            with cursor.copy(copy_in) as copy:
                for chunk in stream:
                    digest.update(chunk)
                    copy.write(chunk)
            rows = cursor.rowcount
        # Spares the attachment a scan while readers wait; checked row by row it costs a quarter more.
        self._execute("alter table {new} add constraint ds_is check (ds = {day})", names)
        self._swaps[table.name, day] = rows
        landed = LandedDay(rows=rows, digest=digest.hexdigest())
        if before is None or before.rows != rows or before == landed:
            return landed
        return before if self._same_rows(table, day) else landed

    def _same_rows(self, table: DayTable, day: date) -> bool:
        """Whether old and new leaf hold the same rows, in whatever order: by the sums of their
        hashes. Too slow for every load; asked only where the bytes differ and the count does not."""
        names = _leaf_names(table.name, day)
        there = self._execute("select to_regclass({leaf_name}) is not null", names).fetchone()
        if there != (True,):
            return False
        row = sql.SQL("row({})").format(
            sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns)
        )
        same = self._execute(
            "select (select sum(hash_record_extended({row}, 0)) from {leaf})"
            " = (select sum(hash_record_extended({row}, 0)) from {new})",
            {**names, "row": row},
        ).fetchone()
        return same == (True,)

    def append_versions(
        self, table: VersionTable, rows: Iterable[Sequence[object]]
    ) -> tuple[int, Iterator[Version]]:
        """Stage what was served; insert the new versions; renumber one that is served again as the
        last of its instant."""
        names: dict[str, sql.Composable] = {
            "raw": sql.Identifier(RAW, table.name),
            "columns": sql.SQL(", ").join(sql.Identifier(c.name) for c in table.columns),
            "key": sql.SQL(", ").join(map(sql.Identifier, table.key)),
            "entity": sql.Identifier(table.entity),
            "since": sql.Identifier(table.since),
            "created": sql.Identifier(table.created),
        }
        self._execute(
            "create temp table served on commit drop as select {columns} from {raw} limit 0;"
            "alter table served add column place bigint generated always as identity",
            names,
        )
        with self._connection.cursor() as cursor:
            copy_in = sql.SQL("copy served ({columns}) from stdin (format binary)").format(**names)
            with cursor.copy(copy_in) as copy:
                copy.set_types([TYPES[c.kind] for c in table.columns])
                for row in rows:
                    copy.write_row(row)
        self._execute(
            "create temp table newest on commit drop as"
            " select distinct on ({key}) * from served order by {key}, place desc;"
            "create temp table before on commit drop as select {key}, _served_no from {raw}"
            " where {entity} in (select {entity} from newest);"
            "analyze newest, before",
            names,
        )
        added = self._execute(
            # The order of the insertion gives the numbers.
            "insert into {raw} ({columns}) select {columns} from newest"
            " left join before using ({key}) where before._served_no is null order by place",
            names,
        ).rowcount
        self._execute(
            "with last as ("
            " select distinct on ({entity}, {since}) {key} from newest"
            " order by {entity}, {since}, place desc),"
            "rivals as ("
            " select {entity}, {since}, max(_served_no) as greatest from {raw}"
            " where {entity} in (select {entity} from newest)"
            " group by {entity}, {since} having count(*) > 1)"
            "update {raw} set _served_no = default where ({key}) in ("
            " select {key} from last join rivals using ({entity}, {since})"
            " join {raw} as stored using ({key}) where stored._served_no < greatest)",
            names,
        )
        return added, self._touched(names)

    def _touched(self, names: dict[str, sql.Composable]) -> Iterator[Version]:
        # A named cursor: the first load of a large source touches every version that there is.
        with self._connection.cursor("touched", row_factory=class_row(Version)) as cursor:
            cursor.itersize = 10_000
            cursor.execute(
                sql.SQL(
                    "select entity, since, created, served, served_before from ("
                    " select {entity} as entity, {since} as since, {created} as created,"
                    "  r._served_no as served, before._served_no as served_before, bool_or("
                    "   before._served_no is distinct from r._served_no"
                    "  ) over (partition by {entity}) as is_touched"
                    " from {raw} as r left join before using ({key})"
                    " where {entity} in (select {entity} from newest)"
                    ") as versions where is_touched order by entity, since, served"
                ).format(**names)
            )
            yield from cursor

    def quarantine(self, found: Iterable[Quarantined]) -> int:
        create_found(self._connection)
        count = 0
        with (
            self._connection.cursor() as cursor,
            cursor.copy("copy found from stdin (format binary)") as copy,
        ):
            copy.set_types(["text"] * 4)
            for item in found:
                copy.write_row((item.place, item.payload, item.reason, item.encoding))
                count += 1
        keep_found(self._connection, self._source)
        return count

    def files(self, table: FileTable) -> list[LandedFile]:
        return self._files.files(table)

    def replace_slot(
        self, table: FileTable, slot: Slot, file: DeliveredFile | None, zone: ZoneInfo
    ) -> tuple[LandedFile | None, set[date]]:
        """Stage a leaf a day; `record` puts those that are new in the place of the old ones."""
        return self._files.replace_slot(table, slot, file, zone)

    def record(self, load: LoadRecord) -> None:
        """Swap the new leaves in, then write the ledger's row; readers wait only from here on."""
        for (table, day), rows in sorted(self._swaps.items()):
            names = _leaf_names(table, day)
            if len(self._swaps) > MANY_DAYS:
                self._retire(table, day)
            else:
                self._execute("drop table if exists {leaf}", names)
            if rows:
                self._execute(
                    "alter table {new} rename to {name};"
                    "alter table {parent} attach partition {leaf} for values in ({day})",
                    names,
                )
            else:
                self._execute("drop table if exists {new}", names)
        # Held until the commit: numbers are handed out in the order of the commits, so that a plan
        # which saw load N has seen every load before it.
        _lock(self._connection, "ledger")
        self._connection.execute(
            "insert into raw.loads (source, window_start, window_end, cursor, days, changed,"
            " rows_landed, rows_quarantined, started_at, finished_at)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp())",
            [
                load.source,
                load.window and load.window.start,
                load.window and load.window.end,
                json.dumps(dict(load.cursor)),
                json.dumps({str(d): [x.rows, x.digest] for d, x in load.days.items()}),
                json.dumps(load.changed.to_json()),
                load.rows_landed,
                load.rows_quarantined,
                load.started_at,
            ],
        )

    def _retire(self, table: str, day: date) -> None:
        """Set a leaf aside under a name that no other has; see MANY_DAYS."""
        names = _leaf_names(table, day)
        found = self._execute("select to_regclass({leaf_name})::oid::text", names).fetchone()
        if found is None or found[0] is None:
            return
        self._execute(
            "alter table {parent} detach partition {leaf}; alter table {leaf} rename to {retired}",
            {**names, "retired": sql.Identifier(f"{table}_{day:%Y%m%d}{RETIRED}{found[0]}")},
        )

    def _execute(
        self, statement: LiteralString, names: dict[str, sql.Composable]
    ) -> psycopg.Cursor:
        return self._connection.execute(sql.SQL(statement).format(**names))


@contextmanager
def _told_apart() -> Iterator[None]:
    """Turn the driver's errors into ours; those of the source pass."""
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise SinkError(f"{error}".strip() + "\nRun first: python -m ingestion init") from error
    except psycopg.errors.OutOfMemory as error:
        raise SinkError(
            f"the warehouse refused it, and nothing of it was landed: {error}".strip()
            + "\nIf that is shared memory: a load takes some locks for each day that it brings. Raise"
            " PostgreSQL's setting max_locks_per_transaction (256 is enough for fifteen years) and"
            " restart the server, or have fewer days delivered at once."
        ) from error
    except psycopg.Error as error:
        raise SinkError(f"the warehouse refused it: {error}".strip()) from error


def _lock(connection: psycopg.Connection, name: str) -> None:
    """Hold a lock of ours until the transaction ends."""
    key = [f"vitrina {name}"]
    got = connection.execute(
        "select pg_try_advisory_xact_lock(hashtextextended(%s, 0))", key
    ).fetchone()
    if got is not None and not got[0]:
        log.info("waiting for another run: %s", name)
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", key)


def _exists(connection: psycopg.Connection, catalog: str, column: str, name: str) -> bool:
    found = connection.execute(
        sql.SQL("select from {} where {} = %s").format(
            sql.Identifier(catalog), sql.Identifier(column)
        ),
        [name],
    )
    return found.fetchone() is not None


def _leaf_names(table: str, day: date) -> dict[str, sql.Composable]:
    name = f"{table}_{day:%Y%m%d}"
    return {
        "parent": sql.Identifier(RAW, table),
        "name": sql.Identifier(name),
        "leaf": sql.Identifier(LEAVES, name),
        "leaf_name": sql.Literal(f'{LEAVES}."{name}"'),
        "new": sql.Identifier(LEAVES, f"{name}__new"),
        "day": sql.Literal(day.isoformat()),
    }


def _loads(connection: psycopg.Connection, sources: list[str]) -> list[LoadRecord]:
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("select * from raw.loads where source = any(%s) order by load_id", [sources])
        return [
            LoadRecord(
                load_id=row["load_id"],
                source=row["source"],
                window=Window(row["window_start"], row["window_end"])
                if row["window_start"]
                else None,
                cursor=json.loads(row["cursor"]),
                days={
                    date.fromisoformat(day): LandedDay(rows, digest)
                    for day, (rows, digest) in json.loads(row["days"]).items()
                },
                changed=DayRanges.from_json(json.loads(row["changed"])),
                rows_landed=row["rows_landed"],
                rows_quarantined=row["rows_quarantined"],
                started_at=_utc(row["started_at"]),
                finished_at=_utc(row["finished_at"]),
            )
            for row in cursor
        ]


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC)
