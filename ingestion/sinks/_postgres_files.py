"""Delivered CSV files into PostgreSQL.

What needs no second look streams as bytes into `COPY` of the day's leaf. Any other file goes through
a temporary table of texts, where what can't be used is set aside in SQL, and one statement a day
types the rest; only malformed lines are told apart in Python. docs/decisions/0008-landing-orders.md
says why.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import LiteralString
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

from ingestion.ahead import made_ahead
from ingestion.csv_files import (
    CsvFile,
    IrregularError,
    judged_lines,
    open_csv,
    told_apart,
    whole_records,
)
from ingestion.csv_usual import DayRuns, UnusualError, day_runs, usual_records
from ingestion.sinks import DeliveredFile, LandedFile, Slot
from ingestion.sinks._postgres_tables import LEAVES, RAW, TYPES, definition, listed
from ingestion.tables import NUMBER, Field, FileTable, Kind

log = logging.getLogger(__name__)

# From here on an index that is made at the end is cheaper than one that is kept up.
MANY_COPIES = 100_000
# Of a file, of some 100 KiB each: they are found while the server is at work on those before.
PARTS_AHEAD = 8
JUDGED = ("line_no", "_reason", "_payload", "_encoding")

NUMERIC = {kind: TYPES[kind] for kind in (Kind.QUANTITY, Kind.MONEY)}
# PostgreSQL reads more as an instant than ISO 8601: `yesterday`, or 02/03/2024 in the order that a
# setting says. This is what we take; not what lies in the first and last year, where placeholders are:
# the day, week or month around it may be none.
INSTANT = (
    r"^(?!0001|9999)\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)?)?$"
)
UTC_TEXT = "YYYY-MM-DD HH24:MI:SS.US"
SEPARATOR, NOTHING = "\x1f", "\x1e"
MALFORMED = (
    IrregularError,
    psycopg.errors.BadCopyFileFormat,
    psycopg.errors.CharacterNotInRepertoire,
)

Names = Mapping[str, sql.Composable]
# Rows, records that can't be used, rows by day.
Staged = tuple[int, int, dict[date, int]]


class _Usual:
    """Looks at blocks of records on their way: `is_all` says whether all of them were usual."""

    def __init__(self, pattern: re.Pattern[bytes] | None) -> None:
        self._pattern = pattern

    @property
    def is_all(self) -> bool:
        return self._pattern is not None

    def passing(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self._pattern is not None and not self._pattern.fullmatch(block):
                self._pattern = None
            yield block


class FileLoader:
    """Lands files within the transaction of a load.

    `swaps` are the days whose leaf is another one when the load ends, with its rows: the new leaf
    `…__new` takes the place of the attached one, and with no rows there is none any more.
    """

    def __init__(
        self, connection: psycopg.Connection, source: str, swaps: dict[tuple[str, date], int]
    ) -> None:
        self._connection = connection
        self._source = source
        self._swaps = swaps

    def files(self, table: FileTable) -> list[LandedFile]:
        """See `Load.files`."""
        rows = self._execute(
            "select slot_kind, slot_date, days, file, delivery_id, url, etag, size_bytes,"
            " rows_landed, rows_quarantined from {registry} where file = {file}"
            " order by slot_kind desc, slot_date",
            {"registry": sql.Identifier(RAW, table.registry), "file": sql.Literal(table.name)},
        )
        return [
            LandedFile(
                Slot(kind, day),
                {date.fromisoformat(d): n for d, n in json.loads(days).items()},
                *others,
            )
            for kind, day, days, *others in rows
        ]

    def replace_slot(
        self, table: FileTable, slot: Slot, file: DeliveredFile | None, zone: ZoneInfo
    ) -> tuple[LandedFile | None, set[date]]:
        """See `Load.replace_slot`."""
        names = _names(table, slot)
        landed = None
        if file is not None:
            # Naive instants are those of the business zone. Memory for a day's orders, not for all.
            self._execute(
                "select set_config('timezone', {zone}, true), set_config('work_mem', '64MB', true),"
                " set_config('maintenance_work_mem', '128MB', true)",
                {"zone": sql.Literal(zone.key)},
            )
            rows, quarantined, days = self._staged(table, names, file, zone)
            self._execute("set local timezone to 'UTC'", {})
            landed = LandedFile(
                slot,
                days,
                table.name,
                file.delivery_id,
                file.url,
                file.etag,
                file.size_bytes,
                rows,
                quarantined,
            )
        if table.identity is None:
            changed = self._replace_plain(names, is_empty=file is None)
        else:
            changed = self._replace_dated(table, names, slot, landed.days if landed else {})
        self._execute("delete from {registry} where {is_slot} and file = {file}", names)
        if landed is not None:
            self._register(names, landed)
        return landed, changed

    def _register(self, names: Names, landed: LandedFile) -> None:
        values = [
            landed.slot.kind,
            landed.slot.day,
            landed.file,
            landed.delivery_id,
            landed.url,
            landed.etag,
            landed.size_bytes,
            landed.rows_landed,
            landed.rows_quarantined,
            json.dumps({str(day): rows for day, rows in sorted(landed.days.items())}),
            datetime.now(UTC),
        ]
        self._execute(
            "insert into {registry} (slot_kind, slot_date, file, delivery_id, url, etag, size_bytes,"
            " rows_landed, rows_quarantined, days, landed_at) values ({values})",
            {**names, "values": sql.SQL(", ").join(map(sql.Literal, values))},
        )

    # --- from bytes to typed rows ---------------------------------------------------------------

    def _staged(
        self, table: FileTable, names: Names, file: DeliveredFile, zone: ZoneInfo
    ) -> Staged:
        """Have the typed rows of a file staged: how many, how many are not, and rows by day.

        Each way is tried within a savepoint; the next one is slower and refuses less.
        """
        by_way_of_texts = partial(self._by_way_of_texts, table, names, file, zone)
        ways: list[Callable[[], Staged]] = [
            partial(by_way_of_texts, is_trusted=True),
            by_way_of_texts,
            partial(by_way_of_texts, is_malformed=True),
        ]
        if table.identity is not None:
            ways.insert(0, partial(self._straight, table, names, file))
        while True:
            way = ways.pop(0)
            try:
                with self._connection.transaction():
                    return way()
            except UnusualError as error:
                log.info("%s goes by way of texts: %s", file.url, error)
            except MALFORMED as error:
                if not ways:
                    raise
                log.info("%s: its lines are told apart (%s)", file.url, _brief(error))
                del ways[:-1]
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                if not ways:
                    raise
                log.info("%s: not all of it can be used (%s)", file.url, _brief(error))
                del ways[:-2]

    def _straight(self, table: FileTable, names: Names, file: DeliveredFile) -> Staged:
        """Copy usual records into the leaves of their days. Raises UnusualError for any other."""
        content = self._opened(table, file)
        runs = day_runs(table, content.columns)
        if runs is None:
            raise UnusualError("its records have no identity of their own")
        self._execute("create temp sequence line_numbers cache 10000", {})
        days: dict[date, int] = {}
        with closing(made_ahead(runs.of(content.body), PARTS_AHEAD)) as found:
            for day, parts in groupby(found, key=itemgetter(0)):
                leaf = {**names, **_leaf(table, day), "kept": listed(runs.columns)}
                if day not in days:
                    self._create_leaf(table, leaf, _given(table, runs, leaf))
                days[day] = days.get(day, 0) + self._copy_into(leaf, map(itemgetter(1), parts))
        for day in days:
            self._own_columns(table, {**names, **_leaf(table, day)}, runs)
        self._execute("drop sequence line_numbers", {})
        return sum(days.values()), 0, days

    def _copy_into(self, leaf: Names, blocks: Iterable[bytes]) -> int:
        """Copy records into a leaf; returns how many they are."""
        statement = sql.SQL(
            "copy {staged_leaf} ({kept}, {identity})"
            " from stdin (format csv, null '', force_null ({kept}), encoding 'UTF8')"
        ).format(**leaf)
        with self._connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for block in blocks:
                    copy.write(block)
            return cursor.rowcount

    def _create_leaf(self, table: FileTable, leaf: Names, given: Names) -> None:
        """A leaf into which records go as they are, with what is given by itself."""
        definitions = [
            sql.SQL("{} {}").format(definition(c), given.get(c.name, sql.SQL("")))
            for c in table.columns
        ]
        self._execute(
            # The check spares the attachment a scan while readers wait.
            "create table {staged_leaf} ({definitions}, constraint ds_is check (ds = {day}))",
            {**leaf, "definitions": sql.SQL(", ").join(definitions)},
        )

    def _own_columns(self, table: FileTable, leaf: Names, runs: DayRuns) -> None:
        """Let a leaf's columns be as its parent's."""
        clauses = [
            sql.SQL("alter {} drop default").format(sql.Identifier(name))
            for name in _given(table, runs, leaf)
        ]
        self._execute(
            "alter table {staged_leaf} {clauses}",
            {**leaf, "clauses": sql.SQL(", ").join(clauses)},
        )

    def _by_way_of_texts(
        self,
        table: FileTable,
        names: Names,
        file: DeliveredFile,
        zone: ZoneInfo,
        *,
        is_trusted: bool = False,
        is_malformed: bool = False,
    ) -> Staged:
        """Copy a file and set aside what can't be used; `is_trusted` does so only if there is a
        record that is not usual."""
        content = self._opened(table, file)
        cells = _cells(table, content)
        self._create_delivered(table, content)
        seen = _Usual(usual_records(table, content.columns) if is_trusted else None)
        if is_malformed:
            records = told_apart(file.url, content.body, len(content.columns))
            self._copy((*JUDGED, *cells), cells, judged_lines(records, len(cells)))
        else:
            self._copy(cells, cells, seen.passing(whole_records(content.body)))
        quarantined = 0 if seen.is_all else self._set_aside(table, file, content)
        values = _values(table, names, zone, is_usual=seen.is_all)
        rows, days = self._typed(table, {**names, **values})
        return rows, quarantined, days

    def _set_aside(self, table: FileTable, file: DeliveredFile, content: CsvFile) -> int:
        """Take what can't be used out of `delivered`; returns how many records that are."""
        keys = sql.SQL(", ").join(map(sql.Literal, content.columns))
        count = self._execute(
            "with bad as (delete from delivered where {reason} is not null returning *)"
            "insert into found (place, payload, reason, encoding)"
            " select {url} || ':' || line_no,"
            "  coalesce(_payload, json_object(array[{keys}]::text[], array[{cells}])::text),"
            "  {reason}, coalesce(_encoding, 'text') from bad",
            {
                "reason": _reason(table.fields),
                "url": sql.Literal(file.url),
                "keys": keys,
                "cells": listed(_cells(table, content)),
            },
        ).rowcount
        keep_found(self._connection, self._source)
        return count

    def _opened(self, table: FileTable, file: DeliveredFile) -> CsvFile:
        content = open_csv(table, file.url, file.read())
        unknown = content.unknown(table.fields)
        if unknown:
            log.info("%s: columns that the contract does not know: %s", file.url, unknown)
        return content

    def _create_delivered(self, table: FileTable, content: CsvFile) -> None:
        """Make the temporary table of a file's texts: contract columns, known to it or not, and the
        others."""
        create_found(self._connection)
        cells = dict.fromkeys([*(field.name for field in table.fields), *_cells(table, content)])
        self._execute(
            "create temp table delivered ("
            "line_no bigint generated by default as identity (cache 10000),"
            " _reason text, _payload text, _encoding text, {definitions}) on commit drop",
            {"definitions": _each("{} text", cells)},
        )

    def _copy(self, columns: Iterable[str], cells: Iterable[str], blocks: Iterable[bytes]) -> None:
        statement = sql.SQL(
            "copy delivered ({}) from stdin (format csv, null '', force_null ({}), encoding 'UTF8')"
        ).format(listed(columns), listed(cells))
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for block in blocks:
                copy.write(block)

    def _typed(self, table: FileTable, names: Names) -> tuple[int, dict[date, int]]:
        """Type the rows of `delivered` into `staged`, and from there into a leaf a day.

        They are in the order of their days, each of which is read from its range of the table.
        Routing each row to a partition takes longer than writing it twice, and partitions in their
        thousands far longer.
        """
        self._execute("create temp table staged (like {raw}) on commit drop", names)
        rows = self._execute(
            "insert into staged ({columns}) select {values} from delivered {in_order}",
            {
                **names,
                "in_order": sql.SQL("" if table.identity is None else "order by {ds}").format(
                    **names
                ),
            },
        ).rowcount
        self._execute("drop table delivered", {})
        if table.identity is None:
            return rows, {}
        spans = self._execute(
            "select ds, count(*), min(ctid)::text, max(ctid)::text from staged group by ds", {}
        ).fetchall()
        for day, _, first, last in spans:
            # The check spares the attachment a scan while readers wait.
            self._execute(
                "create table {staged_leaf} (like {raw} including constraints,"
                " constraint ds_is check (ds = {day}));"
                "insert into {staged_leaf} select * from staged"
                " where ctid between {first} and {last} and ds = {day}",
                {
                    **names,
                    **_leaf(table, day),
                    "first": sql.Literal(first),
                    "last": sql.Literal(last),
                },
            )
        self._execute("drop table staged", {})
        return rows, {day: count for day, count, _, _ in spans}

    # --- in the place of what the slot had ------------------------------------------------------

    def _replace_plain(self, names: Names, *, is_empty: bool) -> set[date]:
        self._execute("delete from {raw} where {is_slot}", names)
        if not is_empty:
            self._execute("insert into {raw} select * from staged; drop table staged", names)
        return set()

    def _replace_dated(
        self, table: FileTable, names: Names, slot: Slot, days: Mapping[date, int]
    ) -> set[date]:
        """Put the staged leaves in the place of the slot's rows; returns the days that can change.

        A winner can change wherever there is a copy of what was in the slot or is now, and, since
        an increment supersedes them, of the report's rows of its day.
        """
        in_force = self.files(table)
        old = {day for file in in_force if file.slot == slot for day in file.days}
        others: dict[date, int] = {}
        for file in in_force:
            if file.slot != slot:
                for day, rows in file.days.items():
                    others[day] = others.get(day, 0) + rows
        changed = old.union(days)
        if slot.day is not None:
            changed.add(slot.day)
        # Otherwise every copy there is would be looked up in the index, one by one.
        is_most = sum(days.values()) >= max(MANY_COPIES, sum(others.values()))
        in_bulk = is_most and self._has_alone(names)
        if in_bulk:
            self._execute("drop index {copies_index}", names)
        if others:
            self._touch(table, names, slot, old, days, in_force)
            self._execute("delete from {copies} where {is_slot} and {is_touched}", names)
            found = self._execute("select distinct ds from {copies} where {is_touched}", names)
            changed.update(day for (day,) in found)
            self._execute("drop table touched", names)
        else:
            # Whoever reads it waits for its index anyway.
            self._execute("truncate {copies}" if in_bulk else "delete from {copies}", names)
        for day in days:
            # Day by day: groups of this size stay in the cache.
            self._execute(
                "insert into {copies} ({identity}, ds, slot_kind, slot_date, last_line_no)"
                " select {identity}, {day}, {slot_kind}, {slot_date}, max(line_no)"
                " from {staged_leaf} group by {identity}",
                {**names, **_leaf(table, day)},
            )
        if in_bulk:
            self._execute("create index {copies_index_name} on {copies} ({identity})", names)
        if is_most:
            self._execute("analyze {copies}", names)
        for day in old.difference(days):
            self._empty(table, names, day, others.get(day, 0))
        for day, rows in days.items():
            self._fill(table, names, day, rows, others.get(day, 0))
        return changed

    def _has_alone(self, names: Names) -> bool:
        """Lock both tables of a model's query if nobody is at one of them.

        Dropping the index locks the second one; whoever reads the first would then wait for us, and we
        for them when the leaves are swapped. Where somebody reads, the index is kept up instead.
        """
        try:
            with self._connection.transaction():
                self._execute(
                    "lock table only {raw}, only {copies} in access exclusive mode nowait", names
                )
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def _touch(
        self,
        table: FileTable,
        names: Names,
        slot: Slot,
        old: Iterable[date],
        days: Iterable[date],
        in_force: Iterable[LandedFile],
    ) -> None:
        """Have in `touched` the identities whose winner can change."""
        self._execute(
            'create temp table touched ({identity} text collate "C") on commit drop', names
        )
        insert: LiteralString = "insert into touched select {identity} from "
        for day in old:
            leaf = {**names, "current": self._current(table, day)}
            self._execute(insert + "{current} where {is_slot}", leaf)
        for day in days:
            self._execute(insert + "{staged_leaf}", {**names, **_leaf(table, day)})
        for file in in_force:
            if slot.day is not None and file.slot.kind == "report" and slot.day in file.days:
                leaf = {**names, "current": self._current(table, slot.day)}
                self._execute(insert + "{current} where slot_kind = 'report'", leaf)
        self._execute("analyze touched", names)

    def _empty(self, table: FileTable, names: Names, day: date, others: int) -> None:
        """Take the slot's rows out of a day."""
        if others:
            self._delete(table, names, day)
            return
        if self._swaps.get((table.name, day)):
            self._execute("drop table {new}", _leaf(table, day))
        self._swaps[table.name, day] = 0

    def _fill(self, table: FileTable, names: Names, day: date, rows: int, others: int) -> None:
        """Put a staged leaf in the place of the slot's rows of a day: whichever moves less."""
        leaf = {**names, **_leaf(table, day)}
        is_new = bool(self._swaps.get((table.name, day)))
        if others and (is_new or others > rows):
            self._delete(table, names, day)
            self._execute(
                "insert into {current} ({columns}) select {columns} from {staged_leaf};"
                "drop table {staged_leaf}",
                {**leaf, "current": self._current(table, day)},
            )
            if is_new:
                self._swaps[table.name, day] = rows + others
            return
        if others:
            self._execute(
                "insert into {staged_leaf} ({columns})"
                " select {columns} from {current} where not {is_slot}",
                {**leaf, "current": self._current(table, day)},
            )
        if is_new:
            self._execute("drop table {new}", leaf)
        self._execute("alter table {staged_leaf} rename to {new_name}", leaf)
        self._swaps[table.name, day] = rows + others

    def _delete(self, table: FileTable, names: Names, day: date) -> None:
        self._execute(
            "delete from {current} where {is_slot}",
            {**names, "current": self._current(table, day)},
        )

    def _current(self, table: FileTable, day: date) -> sql.Composable:
        """The leaf of a day that holds rows, as this load sees it."""
        return _leaf(table, day)["new" if self._swaps.get((table.name, day)) else "leaf"]

    def _execute(self, statement: LiteralString, names: Names) -> psycopg.Cursor:
        return self._connection.execute(sql.SQL(statement).format(**names))


def create_found(connection: psycopg.Connection) -> None:
    """Have the temporary table of what can't be used, from which `keep_found` takes it."""
    connection.execute(
        "create temp table if not exists found ("
        "place text, payload text, reason text, encoding text) on commit drop"
    )


def keep_found(connection: psycopg.Connection, source: str) -> None:
    """Keep what was found and is not kept yet."""
    connection.execute(
        "insert into raw.quarantine (source, place, payload, encoding, reason, occurrence)"
        " select %s, place, payload, encoding, reason,"
        "  row_number() over (partition by place, payload, encoding, reason)"
        " from found on conflict do nothing",
        [source],
    )
    connection.execute("truncate found")


def _names(table: FileTable, slot: Slot) -> Names:
    day = slot.day.isoformat() if slot.day else None
    names: dict[str, sql.Composable] = {
        "raw": sql.Identifier(RAW, table.name),
        "registry": sql.Identifier(RAW, table.registry),
        "file": sql.Literal(table.name),
        "columns": listed(column.name for column in table.columns),
        "slot_kind": sql.Literal(slot.kind),
        "slot_date": sql.SQL("null::date")
        if day is None
        else sql.SQL("{}::date").format(sql.Literal(day)),
    }
    names["is_slot"] = sql.SQL(
        "(slot_kind = {slot_kind} and slot_date is null)"
        if day is None
        else "(slot_kind = {slot_kind} and slot_date = {slot_date})"
    ).format(**names)
    if table.identity is not None:
        index = f"{table.identity.copies}_{table.identity.name}_idx"
        identity = sql.Identifier(table.identity.name)
        names |= {
            "identity": identity,
            "copies": sql.Identifier(RAW, table.identity.copies),
            "copies_index": sql.Identifier(RAW, index),
            "copies_index_name": sql.Identifier(index),
            "is_touched": sql.SQL("{0} in (select {0} from touched)").format(identity),
        }
    return names


def _given(table: FileTable, runs: DayRuns, leaf: Names) -> Names:
    """What the columns are that a file's records don't say, as `create table` has it."""
    values: dict[str, sql.Composable] = {
        "line_no": sql.SQL("nextval('line_numbers')"),
        "ds": leaf["day"],
        "slot_kind": leaf["slot_kind"],
        "slot_date": leaf["slot_date"],
    }
    for field in table.fields:
        if field.default is not None and field.name not in runs.columns:
            values[field.name] = sql.Literal(field.default)
    return {name: sql.SQL("default {}").format(value) for name, value in values.items()}


def _leaf(table: FileTable, day: date) -> dict[str, sql.Composable]:
    name = f"{table.name}_{day:%Y%m%d}"
    return {
        "leaf": sql.Identifier(LEAVES, name),
        "new": sql.Identifier(LEAVES, f"{name}__new"),
        "new_name": sql.Identifier(f"{name}__new"),
        "staged_leaf": sql.Identifier(LEAVES, f"{name}__staged"),
        "day": sql.Literal(day.isoformat()),
    }


def _cells(table: FileTable, content: CsvFile) -> tuple[str, ...]:
    """The columns of `delivered` for those of a file: the contract's by name, others by place."""
    known = {field.name for field in table.fields}
    return tuple(
        name if name in known else f"_cell_{place}" for place, name in enumerate(content.columns, 1)
    )


def _reason(fields: Iterable[Field]) -> sql.Composed:
    """Why a row of `delivered` can't be used, or null; the first reason of the first column."""
    cases = [case for field in fields for case in _cases(field)]
    return sql.SQL("coalesce(_reason, case {} end)").format(sql.SQL(" ").join(cases))


def _cases(field: Field) -> Iterator[sql.Composable]:
    column = sql.Identifier(field.name)

    def case(condition: LiteralString, what: str, **names: sql.Composable) -> sql.Composable:
        return sql.SQL("when {} then {}").format(
            sql.SQL(condition).format(column=column, **names), sql.Literal(f"{field.name} {what}")
        )

    if field.required and field.default is None:
        yield case("{column} is null", "is empty")
    if field.allowed:
        allowed = sql.SQL(", ").join(map(sql.Literal, field.allowed))
        yield case(
            "{column} not in ({allowed})", f"is none of {', '.join(field.allowed)}", allowed=allowed
        )
    if field.longest is not None:
        yield case(
            "octet_length({column}) > {longest}",
            f"is longer than {field.longest} bytes",
            longest=sql.Literal(field.longest),
        )
    if field.kind is Kind.INSTANT:
        yield case(
            "{column} !~ {pattern} or not pg_input_is_valid({column}, 'timestamptz')",
            "is no instant",
            pattern=sql.Literal(INSTANT),
        )
    if field.kind in NUMERIC:
        yield case(
            "{column} !~ {pattern} or not pg_input_is_valid({column}, 'numeric')",
            "is no number",
            pattern=sql.Literal(NUMBER),
        )
        if field.minimum is not None:
            yield case(
                "{column}::numeric < {minimum}",
                f"is less than {field.minimum}",
                minimum=sql.Literal(field.minimum),
            )
        yield case(
            "not pg_input_is_valid({column}, {type})",
            "is too great",
            type=sql.Literal(NUMERIC[field.kind]),
        )


def _values(table: FileTable, names: Names, zone: ZoneInfo, *, is_usual: bool) -> Names:
    """The columns of the raw table from those of `delivered`, as `values`, and `ds` of them.

    `is_usual` says that all instants are naive: then the day is what they begin with.
    """
    typed = {field.name: _value(field) for field in table.fields}
    values: dict[str, sql.Composable] = {**names, **typed, "line_no": sql.Identifier("line_no")}
    if table.dated_by is not None and is_usual:
        values["ds"] = sql.SQL("left({}, 10)::date").format(sql.Identifier(table.dated_by))
    elif table.dated_by is not None:
        values["ds"] = sql.SQL("({} at time zone {})::date").format(
            typed[table.dated_by], sql.Literal(zone.key)
        )
    if table.identity is not None:
        texts = [
            sql.SQL("coalesce({}, {})").format(
                _text(field, typed[field.name]), sql.Literal(NOTHING)
            )
            for field in table.fields
            if field.name in table.identity.content
        ]
        values[table.identity.name] = sql.SQL("coalesce({}, md5(concat_ws({}, {})))").format(
            sql.Identifier(table.identity.key), sql.Literal(SEPARATOR), sql.SQL(", ").join(texts)
        )
    placed = sql.SQL(", ").join(values[column.name] for column in table.columns)
    return {"values": placed, "ds": values.get("ds", sql.SQL("null"))}


def _value(field: Field) -> sql.Composable:
    column = sql.Identifier(field.name)
    if field.kind in NUMERIC:
        return sql.SQL("{}::{}").format(column, sql.SQL(NUMERIC[field.kind]))
    if field.kind is Kind.INSTANT:
        return sql.SQL("{}::timestamptz").format(column)
    if field.default is not None:
        return sql.SQL("coalesce({}, {})").format(column, sql.Literal(field.default))
    return column


def _text(field: Field, value: sql.Composable) -> sql.Composable:
    """A typed value as the text that identities are made of."""
    if field.kind is Kind.INSTANT:
        return sql.SQL("to_char({} at time zone 'UTC', {})").format(value, sql.Literal(UTC_TEXT))
    if field.kind in NUMERIC:
        return sql.SQL("({})::text").format(value)
    return value


def _each(clause: LiteralString, names: Iterable[str]) -> sql.Composed:
    """A clause for each column."""
    return sql.SQL(", ").join(sql.SQL(clause).format(sql.Identifier(name)) for name in names)


def _brief(error: Exception) -> str:
    """The first line of a driver's message; the others show data."""
    return str(error).partition("\n")[0] or "a quote where none should be"
