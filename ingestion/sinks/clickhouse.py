"""ClickHouse as the warehouse.

It has no transactions. A load makes everything ready in tables aside, where nobody looks, and then
takes one step for readers a day: `REPLACE PARTITION`. What a crash leaves between two steps, the
next load of the source completes (`ingestion.sinks._clickhouse_commit`). Loads wait for each other
on leases (`ingestion.sinks._clickhouse_lock`), which are one server's: on a cluster all landing goes
to the same one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from ingestion.clickhouse_http import Clickhouse, instant, named, quoted
from ingestion.errors import SinkError, UsageError
from ingestion.ledger import Build, LandedDay, LoadRecord
from ingestion.settings import ClickhouseSettings, read_settings
from ingestion.sinks import BulkFormat, DeliveredFile, LandedFile, Quarantined, Slot, Version
from ingestion.sinks._clickhouse_commit import (
    Commit,
    Intent,
    ReadyPartition,
    ReadyVersions,
    drop_aside,
    ledger_row,
    loads_of,
    open_intent,
    read_instant,
)
from ingestion.sinks._clickhouse_files import FileLoader
from ingestion.sinks._clickhouse_lock import lock
from ingestion.sinks._clickhouse_tables import DATABASES, RAW, TYPES, WORK, init, make_aside
from ingestion.tables import Column, DayTable, FileTable, RawTable, VersionTable

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 17


def connect() -> ClickhouseSink:
    """Find the server of the `CLICKHOUSE_*` settings.

    Raises SinkError when it does not answer, or has not the whole calendar.
    """
    settings = read_settings(ClickhouseSettings)
    clickhouse = Clickhouse(
        settings.host,
        settings.port,
        settings.user,
        settings.password.get_secret_value(),
        settings.db,
        settings.cluster,
    )
    return ClickhouseSink(clickhouse.connected(), settings.lock_seconds)


class ClickhouseSink:
    """A server; each statement has a connection of its own."""

    def __init__(self, clickhouse: Clickhouse, lease_seconds: float) -> None:
        self._clickhouse = clickhouse
        self._lease_seconds = lease_seconds

    def init(self, tables: Iterable[RawTable]) -> None:
        """Make databases, raw tables, ledger and outbox. Idempotent; additive for new columns.

        Raises SinkError when a newer Vitrina made them, or a column has another type.
        """
        there = {name for (name,) in self._clickhouse.rows("select name from system.databases")}
        for database in DATABASES:
            # IF NOT EXISTS still asks for the right to create, which a plain user may lack.
            if database not in there:
                self._clickhouse.run(
                    f"create database if not exists {named(database)}{self._clickhouse.on_cluster}"
                )
        with self._lock("init"):
            init(self._clickhouse, tables)

    @contextmanager
    def load(self, source: str) -> Iterator[ClickhouseLoad]:
        """Hold the lock of this source; what the block made ready happens at its end, or not at all."""
        with self._lock(f"load {source}") as still_held:
            self._complete_what_was_left(source)
            load = ClickhouseLoad(self._clickhouse, source)
            try:
                yield load
            except BaseException:
                try:
                    drop_aside(self._clickhouse, source)
                except SinkError as error:  # what went wrong first is what is worth telling
                    log.warning("tables aside are left for the next load of %s: %s", source, error)
                raise
            still_held()
            with self._lock("ledger") as ledger_held:
                load.commit(ledger_held)

    def loads(self, sources: Iterable[str]) -> list[LoadRecord]:
        return loads_of(self._clickhouse, list(sources))

    def builds(self, domain: str) -> list[Build]:
        rows = self._clickhouse.rows(
            "select build_id, load_id, days, is_void, finished_at is not null"
            " from raw.builds where domain = {domain:String} order by build_id",
            domain=domain,
        )
        return [
            Build(
                domain=domain,
                load_id=load_id,
                days=tuple(date.fromisoformat(day) for day in json.loads(days)),
                build_id=build_id,
                finished=bool(finished),
                void=bool(void),
            )
            for build_id, load_id, days, void, finished in rows
        ]

    def plan_build(self, build: Build) -> int:
        with self._lock("builds"):
            newest = max(self.builds(build.domain), key=lambda b: b.build_id, default=None)
            is_open = newest is not None and not newest.finished and not newest.void
            if newest and is_open and (newest.days, newest.load_id) == (build.days, build.load_id):
                return newest.build_id
            (number,) = self._clickhouse.row("select max(build_id) + 1 from raw.builds")
            row = {
                "build_id": number,
                "domain": build.domain,
                "load_id": build.load_id,
                "days": json.dumps([str(day) for day in build.days]),
            }
            self._clickhouse.insert(
                "insert into raw.builds (build_id, domain, load_id, days) format JSONEachRow",
                [json.dumps(row).encode()],
            )
            return int(number)

    def finish_build(self, build_id: int) -> None:
        with self._lock("builds"):
            rows = self._clickhouse.rows(
                "select domain from raw.builds where build_id = {build:Int64}", build=build_id
            )
            for (domain,) in rows:
                # One mutation: a build is never finished with the others not void.
                now = f"toDateTime64({quoted(instant(datetime.now(UTC)))}, 6, 'UTC')"
                self._clickhouse.run(
                    "alter table raw.builds update"
                    f" finished_at = if(build_id = {build_id}, {now}, finished_at),"
                    f" is_void = if(build_id = {build_id}, is_void, true)"
                    f" where domain = {quoted(domain)} and finished_at is null"
                )

    def close(self) -> None:
        """There is nothing to give back."""

    def _lock(self, name: str) -> AbstractContextManager[Callable[[], None]]:
        return lock(self._clickhouse, WORK, name, self._lease_seconds)

    def _complete_what_was_left(self, source: str) -> None:
        intent = open_intent(self._clickhouse, source)
        if intent is not None:
            log.info("completing the load of %s that was left half done", source)
            with self._lock("ledger"):
                Commit(self._clickhouse, intent).complete()
        drop_aside(self._clickhouse, source)


class ClickhouseLoad:
    """A load in progress: what it has made ready."""

    bulk_format: BulkFormat = "tsv"

    def __init__(self, clickhouse: Clickhouse, source: str) -> None:
        self._clickhouse = clickhouse
        self._source = source
        self._ready: dict[tuple[str, str], ReadyPartition] = {}
        self._versions: list[ReadyVersions] = []
        self._quarantine: str | None = None
        self._quarantine_calls = 0
        self._tables = 0
        self._files = FileLoader(clickhouse, self._ready, self._aside, self._set_aside)
        self._zone: str | None = None
        self._record: LoadRecord | None = None

    def loads(self) -> list[LoadRecord]:
        return loads_of(self._clickhouse, [self._source])

    def business_timezone(self, wanted: str) -> str:
        self._zone = wanted
        return self._landed_zone() or wanted

    def replace_day(
        self,
        table: DayTable,
        day: date,
        stream: Iterable[bytes],
        before: LandedDay | None,
        bulk_format: BulkFormat | None = None,
    ) -> LandedDay:
        """Load a day aside. Its digest is that of its rows in any order, so `before` is not asked."""
        del before
        assert bulk_format in (None, self.bulk_format)
        aside = self._aside(f"{table.name}__{day:%Y%m%d}")
        make_aside(self._clickhouse, aside, table.name)
        # `ds` is a default and not in the stream.
        self._clickhouse.run(
            f"alter table {named(WORK, aside)} modify column ds default toDate32('{day}')"
        )
        columns = ", ".join(named(column.name) for column in table.columns)
        self._clickhouse.insert(
            f"insert into {named(WORK, aside)} ({columns}) format TabSeparated", stream
        )
        rows, digest = self._clickhouse.row(
            f"select count(), hex(sum({_row_hash(table.columns)})) from {named(WORK, aside)}"
        )
        partition = quoted(day.isoformat())
        self._ready[table.name, partition] = ReadyPartition(table.name, partition, aside, rows)
        return LandedDay(rows=rows, digest=digest.lower())

    def append_versions(
        self, table: VersionTable, rows: Iterable[Sequence[object]]
    ) -> tuple[int, Iterator[Version]]:
        """Make the new versions ready, and new numbers for those that are served again as the last
        of their instant."""
        names = _VersionNames.of(table, self._aside)
        make_aside(self._clickhouse, names.served, table.name)
        make_aside(self._clickhouse, names.added, table.name)
        self._statements(
            names,
            "alter table {served} add column place UInt64, drop column _served_no",
        )
        self._clickhouse.insert(
            names.fill("insert into {served} ({columns}, place) format JSONCompactEachRow"),
            _json_rows((*row, place) for place, row in enumerate(rows)),
        )
        self._statements(
            names,
            # The order in which they were served gives the numbers.
            "insert into {added} ({columns}, _served_no)"
            " select {columns}, (select max(_served_no) from {raw}) + row_number() over (order by place)"
            " from (select * from {served} order by place desc limit 1 by {key}) as newest"
            " left anti join"
            " (select {key} from {raw} where {entity} in (select {entity} from {served})) as stored"
            " using ({key})",
            # All versions of the records that were served, as they will be.
            "create table {after} engine = MergeTree order by tuple() as"
            " select {kept}, _served_no as served, toNullable(_served_no) as served_before from {raw}"
            " where {entity} in (select {entity} from {served})"
            " union all select {kept}, _served_no, null from {added}",
            "create table {renumbered} engine = MergeTree order by tuple() as"
            " select {key}, row_number() over (order by place) + greatest("
            "  (select max(_served_no) from {raw}), (select max(_served_no) from {added})) as served"
            " from (select {key}, place from {served}"
            "  order by place desc limit 1 by {entity}, {since}) as last"
            " join {after} as held using ({key})"
            " join (select {entity}, {since}, max(served) as greatest from {after}"
            "  group by {entity}, {since}) as rivals using ({entity}, {since})"
            " where held.served < rivals.greatest",
        )
        self._versions.append(
            ReadyVersions(
                table=table.name,
                columns=[column.name for column in table.columns],
                key=list(table.key),
                added=names.added,
                renumbered=names.renumbered,
            )
        )
        (added,) = self._clickhouse.row(names.fill("select count() from {added}"))
        return added, self._touched(names)

    def _touched(self, names: _VersionNames) -> Iterator[Version]:
        rows = self._clickhouse.rows(
            names.fill(
                "select {entity}, {since}, {created}, served, served_before from ("
                " select {kept_of_after}, coalesce(renumbered.served, after.served) as served,"
                "  after.served_before as served_before, max(coalesce("
                "   renumbered.served, after.served) is distinct from after.served_before"
                "  ) over (partition by after.{entity}) as is_touched"
                " from {after} as after left join {renumbered} as renumbered using ({key})"
                ") where is_touched order by {entity}, {since}, served"
            )
        )
        for entity, since, created, served, served_before in rows:
            yield Version(
                entity=entity,
                since=read_instant(since),
                created=read_instant(created) if created else None,
                served=served,
                served_before=served_before,
            )

    def quarantine(self, found: Iterable[Quarantined]) -> int:
        aside = self._quarantine_aside()
        count = 0

        def rows() -> Iterator[tuple[object, ...]]:
            nonlocal count
            for item in found:
                count += 1
                place = (item.place, item.payload, item.reason, item.encoding)
                yield (self._quarantine_calls, count, *place)

        self._clickhouse.insert(
            f"insert into {aside} format JSONCompactEachRow", _json_rows(rows())
        )
        return count

    def files(self, table: FileTable) -> list[LandedFile]:
        return self._files.files(table)

    def replace_slot(
        self, table: FileTable, slot: Slot, file: DeliveredFile | None, zone: ZoneInfo
    ) -> tuple[LandedFile | None, set[date]]:
        """Make the partitions ready in which the slot has rows, or had."""
        return self._files.replace_slot(table, slot, file, zone)

    def _set_aside(self, query: str) -> int:
        """Quarantine the rows of a query: number, place, payload, reason, encoding."""
        aside = self._quarantine_aside()
        self._clickhouse.run(
            f"insert into {aside} select {self._quarantine_calls}, * from ({query})"
        )
        (count,) = self._clickhouse.row(
            f"select count() from {aside} where call = {self._quarantine_calls}"
        )
        return int(count)

    def _quarantine_aside(self) -> str:
        if self._quarantine is None:
            self._quarantine = self._aside("quarantine")
            self._clickhouse.run(
                f"create table {named(WORK, self._quarantine)} (call UInt32, no UInt64, place String,"
                " payload String, reason String, encoding String) engine = MergeTree order by no"
            )
        self._quarantine_calls += 1
        return named(WORK, self._quarantine)

    def record(self, load: LoadRecord) -> None:
        """Keep the ledger's row for the end of the load."""
        self._files.keep_registries()
        self._record = load

    def commit(self, still_held: Callable[[], None]) -> None:
        """Let happen what is ready, if the load was recorded; under the ledger's lock."""
        if self._record is None:
            drop_aside(self._clickhouse, self._source)
            return
        if self._zone is not None:
            self._keep_zone(self._zone)
        commit = Commit(
            self._clickhouse,
            Intent(
                source=self._source,
                row=ledger_row(self._record),
                partitions=list(self._ready.values()),
                versions=self._versions,
                quarantine=self._quarantine,
            ),
        )
        still_held()
        commit.write_intent()
        commit.complete()

    def _landed_zone(self) -> str | None:
        query = "select value from raw.settings where name = 'business_timezone'"
        return next((str(value) for (value,) in self._clickhouse.rows(query)), None)

    def _keep_zone(self, zone: str) -> None:
        landed_in = self._landed_zone()
        if landed_in is None:
            row = json.dumps({"name": "business_timezone", "value": zone})
            self._clickhouse.insert("insert into raw.settings format JSONEachRow", [row.encode()])
        elif landed_in != zone:
            raise UsageError(
                f"BUSINESS_TIMEZONE is {zone}, another load has just begun to cut days in {landed_in}"
            )

    def _aside(self, name: str) -> str:
        """The name of a table of this load's own; what an earlier one left is gone by now."""
        self._tables += 1
        return f"{self._source}__{name}__{self._tables}"

    def _statements(self, names: _VersionNames, *statements: str) -> None:
        for statement in statements:
            self._clickhouse.run(names.fill(statement))


@dataclass(frozen=True)
class _VersionNames:
    """The tables and columns of an appending, as statements name them."""

    served: str
    added: str
    renumbered: str
    quoted: Mapping[str, str]

    @classmethod
    def of(cls, table: VersionTable, aside: Callable[[str], str]) -> _VersionNames:
        asides = {
            name: aside(f"{table.name}__{name}")
            for name in ("served", "added", "after", "renumbered")
        }
        kept = [*table.key, *({table.entity, table.since, table.created} - {*table.key})]
        return cls(
            served=asides["served"],
            added=asides["added"],
            renumbered=asides["renumbered"],
            quoted={
                "raw": named(RAW, table.name),
                "columns": ", ".join(named(column.name) for column in table.columns),
                "key": ", ".join(map(named, table.key)),
                "kept": ", ".join(map(named, kept)),
                "kept_of_after": ", ".join(
                    f"after.{named(name)} as {named(name)}" for name in kept
                ),
                "entity": named(table.entity),
                "since": named(table.since),
                "created": named(table.created),
                **{name: named(WORK, aside) for name, aside in asides.items()},
            },
        )

    def fill(self, statement: str) -> str:
        return statement.format_map(self.quoted)


def _row_hash(columns: Iterable[Column]) -> str:
    """A number of 128 bits of a row's cells; hash functions alone make null of whatever has a null."""
    parts = []
    for column in columns:
        name = named(column.name)
        if column.nullable:
            default = f"defaultValueOfTypeName({quoted(TYPES[column.kind])})"
            parts += [f"isNull({name})", f"ifNull({name}, {default})"]
        else:
            parts.append(name)
    return f"reinterpretAsUInt128(sipHash128({', '.join(parts)}))"


def _json_rows(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Rows as JSONCompactEachRow, in large pieces."""
    pending = bytearray()
    for row in rows:
        pending += json.dumps(row, ensure_ascii=False, default=_cell).encode() + b"\n"
        if len(pending) >= CHUNK_BYTES:
            yield bytes(pending)
            pending.clear()
    yield bytes(pending)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"no cell can hold {type(value).__name__}")
