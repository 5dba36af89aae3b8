"""How a load on ClickHouse, which has no transactions, happens as a whole.

All of it is made ready in tables aside. Then an *intent* is written, one row that says what is
ready; from there on the load can only be completed: each step can be done again, the ledger's row is
the last one, and the next load of the source completes what a crash left of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from ingestion.clickhouse_http import (
    INCOMPATIBLE_COLUMNS,
    Clickhouse,
    ClickhouseError,
    instant,
    named,
    quoted,
)
from ingestion.days import DayRanges, Window
from ingestion.ledger import LandedDay, LoadRecord
from ingestion.sinks._clickhouse_tables import RAW, SERVED, WORK

TABLES_A_DROP = 500
ROWS_A_MUTATION = 200  # a statement may have 256 KB


@dataclass(frozen=True)
class ReadyPartition:
    """A partition of a table (its value as a literal), ready in `aside` unless it is empty."""

    table: str
    partition: str
    aside: str
    rows: int


@dataclass(frozen=True)
class ReadyVersions:
    """New versions of a table, and new numbers for old ones, ready in two tables aside."""

    table: str
    columns: list[str]
    key: list[str]
    added: str
    renumbered: str


@dataclass(frozen=True)
class Intent:
    """What is ready, and the ledger's row (without its number) that ends it."""

    source: str
    row: dict[str, Any]
    partitions: list[ReadyPartition] = field(default_factory=list)
    versions: list[ReadyVersions] = field(default_factory=list)
    quarantine: str | None = None

    def to_json(self) -> str:
        """The intent as a text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Intent:
        """The inverse of to_json."""
        read = json.loads(text)
        return cls(
            source=read["source"],
            row=read["row"],
            partitions=[ReadyPartition(**each) for each in read["partitions"]],
            versions=[ReadyVersions(**each) for each in read["versions"]],
            quarantine=read["quarantine"],
        )


class Commit:
    """The steps from an intent to the ledger's row; all under the locks of source and ledger."""

    def __init__(self, clickhouse: Clickhouse, intent: Intent) -> None:
        self._clickhouse = clickhouse
        self._intent = intent

    def write_intent(self) -> None:
        """From here on the load will be completed."""
        row = json.dumps({"source": self._intent.source, "intent": self._intent.to_json()})
        self._clickhouse.insert(
            f"insert into {WORK}.intents (source, intent) format JSONEachRow", [row.encode()]
        )

    def complete(self) -> None:
        """Take all steps, from whichever on they are not taken yet."""
        if not self._is_in_ledger():
            there = self._tables_aside()
            for versions in self._intent.versions:
                if {versions.added, versions.renumbered} <= there:
                    self.add_versions(versions)
                    self.renumber(versions)
            for ready in self._intent.partitions:
                if ready.aside in there or not ready.rows:
                    self.swap(ready)
            if self._intent.quarantine in there:
                self.set_aside(self._intent.quarantine)
            self.write_ledger()
        self.clean()

    def add_versions(self, versions: ReadyVersions) -> None:
        """Insert the new versions that are not there yet."""
        columns = ", ".join(map(named, [*versions.columns, SERVED.name]))
        key = ", ".join(map(named, versions.key))
        added = named(WORK, versions.added)
        self._clickhouse.run(
            f"insert into {named(RAW, versions.table)} ({columns})"
            f" select {columns} from {added} as ready left anti join ("
            f"  select {key} from {named(RAW, versions.table)}"
            f"  where {named(versions.key[0])} in (select {named(versions.key[0])} from {added})"
            f" ) as stored using ({key})"
        )

    def renumber(self, versions: ReadyVersions) -> None:
        """Give versions that were served again the numbers that are ready for them."""
        key = f"[{', '.join(f'toString({named(name)})' for name in versions.key)}]"
        query = f"select {key}, served from {named(WORK, versions.renumbered)}"
        for batch in _batches(self._clickhouse.rows(query)):
            keys = ", ".join(f"[{', '.join(map(quoted, found))}]" for found, _ in batch)
            numbers = ", ".join(str(number) for _, number in batch)
            self._clickhouse.run(
                f"alter table {named(RAW, versions.table)} update {named(SERVED.name)} ="
                f" [{numbers}][indexOf([{keys}], {key})] where has([{keys}], {key})"
            )

    def swap(self, ready: ReadyPartition) -> None:
        """Put a partition in the place of the old one, in one step for readers."""
        table = named(RAW, ready.table)
        if not ready.rows:
            self._clickhouse.run(f"alter table {table} drop partition {ready.partition}")
            return
        replace = f"alter table {table} replace partition {ready.partition} from {named(WORK, ready.aside)}"
        try:
            self._clickhouse.run(replace)
        except ClickhouseError as error:
            if error.code != INCOMPATIBLE_COLUMNS:
                raise
            # `init` has added a column to the table since it was made ready.
            self._conform(ready)
            self._clickhouse.run(replace)

    def set_aside(self, aside: str) -> None:
        """Keep in quarantine what is not kept yet; identical payloads as often as they were found."""
        same = "place, payload, encoding, reason, occurrence"
        self._clickhouse.run(
            "insert into raw.quarantine"
            " (quarantine_id, source, place, payload, encoding, reason, occurrence)"
            " select (select max(quarantine_id) from raw.quarantine) + row_number() over (order by first),"
            f"  {{source:String}}, {same} from ("
            f"  select {same}, min((call, no)) as first from ("
            "   select *, toInt64(row_number() over ("
            "    partition by call, place, payload, encoding, reason order by no)) as occurrence"
            f"   from {named(WORK, aside)}"
            f"  ) group by {same}"
            " ) as found left anti join ("
            f"  select {same} from raw.quarantine where source = {{source:String}}"
            f" ) as kept using ({same})",
            source=self._intent.source,
        )

    def write_ledger(self) -> None:
        """Write the row without which the load did not happen."""
        (number,) = self._clickhouse.row("select max(load_id) + 1 from raw.loads")
        row = {"load_id": number, **self._intent.row, "finished_at": instant(datetime.now(UTC))}
        self._clickhouse.insert(
            "insert into raw.loads format JSONEachRow", [json.dumps(row).encode()]
        )

    def clean(self) -> None:
        """Forget the intent, then what was ready for it."""
        self._clickhouse.run(
            f"alter table {WORK}.intents drop partition {quoted(self._intent.source)}"
        )
        drop_aside(self._clickhouse, self._intent.source)

    def _conform(self, ready: ReadyPartition) -> None:
        columns = self._clickhouse.rows(
            "select name, type from system.columns where database = {raw:String} and table ="
            " {table:String} and name not in (select name from system.columns"
            " where database = {work:String} and table = {aside:String}) order by position",
            raw=RAW,
            table=ready.table,
            work=WORK,
            aside=ready.aside,
        )
        for name, of_type in columns:
            self._clickhouse.run(
                f"alter table {named(WORK, ready.aside)} add column {named(name)} {of_type}"
            )

    def _is_in_ledger(self) -> bool:
        # Loads of one source follow each other: no two begin at the same microsecond.
        (found,) = self._clickhouse.row(
            "select count() from raw.loads"
            " where source = {source:String} and started_at = {at:DateTime64(6, 'UTC')}",
            source=self._intent.source,
            at=self._intent.row["started_at"],
        )
        return bool(found)

    def _tables_aside(self) -> set[str]:
        # Somebody who dropped them made the load undone: then the days that it could have changed
        # are built again, which is never wrong.
        return set(tables_aside(self._clickhouse, self._intent.source))


def open_intent(clickhouse: Clickhouse, source: str) -> Intent | None:
    """The intent that a crash left, if it did."""
    query = (
        f"select intent from {WORK}.intents where source = {{source:String}}"
        " order by made_at desc limit 1"
    )
    found = list(clickhouse.rows(query, source=source))
    return Intent.from_json(found[0][0]) if found else None


def tables_aside(clickhouse: Clickhouse, source: str) -> list[str]:
    """The tables that loads of a source have made ready, or left."""
    query = (
        f"select name from system.tables where database = '{WORK}'"
        " and startsWith(name, {prefix:String})"
    )
    return [name for (name,) in clickhouse.rows(query, prefix=f"{source}__")]


def drop_aside(clickhouse: Clickhouse, source: str) -> None:
    """Drop them."""
    names = tables_aside(clickhouse, source)
    for first in range(0, len(names), TABLES_A_DROP):
        some = ", ".join(named(WORK, name) for name in names[first : first + TABLES_A_DROP])
        clickhouse.run(f"drop table if exists {some} sync")


def ledger_row(load: LoadRecord) -> dict[str, Any]:
    """The ledger's row of a load, but for its number and its end."""
    return {
        "source": load.source,
        "window_start": load.window and load.window.start.isoformat(),
        "window_end": load.window and load.window.end.isoformat(),
        "cursor": json.dumps(dict(load.cursor)),
        "days": json.dumps({str(day): [x.rows, x.digest] for day, x in load.days.items()}),
        "changed": json.dumps(load.changed.to_json()),
        "rows_landed": load.rows_landed,
        "rows_quarantined": load.rows_quarantined,
        "started_at": instant(load.started_at),
    }


def loads_of(clickhouse: Clickhouse, sources: Sequence[str]) -> list[LoadRecord]:
    """The ledger's rows of some sources, oldest first."""
    query = (
        "select load_id, source, window_start, window_end, cursor, days, changed, rows_landed,"
        " rows_quarantined, started_at, finished_at from raw.loads"
        " where source in {sources:Array(String)} order by load_id"
    )
    return [_record(row) for row in clickhouse.rows(query, sources=list(sources))]


def _record(row: Sequence[Any]) -> LoadRecord:
    load_id, source, start, end, cursor, days, changed, landed, quarantined, began, finished = row
    held: Mapping[str, list[Any]] = json.loads(days)
    return LoadRecord(
        load_id=load_id,
        source=source,
        window=Window(date.fromisoformat(start), date.fromisoformat(end)) if start else None,
        cursor=json.loads(cursor),
        days={date.fromisoformat(day): LandedDay(*landing) for day, landing in held.items()},
        changed=DayRanges.from_json(json.loads(changed)),
        rows_landed=landed,
        rows_quarantined=quarantined,
        started_at=read_instant(began),
        finished_at=read_instant(finished),
    )


def read_instant(text: str) -> datetime:
    """An instant as ClickHouse writes it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _batches(rows: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    batch: list[list[Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_A_MUTATION:
            yield batch
            batch = []
    if batch:
        yield batch
