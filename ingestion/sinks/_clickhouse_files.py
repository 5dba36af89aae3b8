"""Delivered CSV files into ClickHouse.

A file streams as bytes into a table of texts aside; one statement types its usable rows, others go to
quarantine with the reason. Only a file whose lines are malformed is read again and told apart in Python.
What of the partitions that it touches belongs to other slots is written beside its rows: then the table
aside has these partitions as they shall be, and each takes the old one's place in one step.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from ingestion.clickhouse_http import Clickhouse, ClickhouseError, instant, named, quoted
from ingestion.csv_files import (
    CsvFile,
    IrregularError,
    judged_lines,
    open_csv,
    told_apart,
    whole_records,
)
from ingestion.sinks import DeliveredFile, LandedFile, Slot
from ingestion.sinks._clickhouse_commit import ReadyPartition
from ingestion.sinks._clickhouse_tables import RAW, SLOT_MONTH, WORK, make_aside
from ingestion.sinks._clickhouse_typing import cells_of, reason_of, values_of
from ingestion.tables import FileTable, Identity

log = logging.getLogger(__name__)

JUDGED = ("line_no", "_reason", "_payload", "_encoding")
# Something that no cell is: the engine wants a word for null, and nulls are empty cells here.
NO_CELL = secrets.token_hex(16)
# Bytes as they are: nothing is guessed, trimmed or taken for a null but the empty cell.
CSV = (
    "settings input_format_csv_detect_header = 0, input_format_csv_trim_whitespaces = 0,"
    " format_csv_allow_single_quotes = 0, format_csv_allow_double_quotes = 1,"
    f" format_csv_null_representation = '{NO_CELL}', input_format_csv_empty_as_default = 1,"
    " input_format_csv_allow_variable_number_of_columns = 0,"
    " input_format_csv_skip_first_lines = 0, format_csv_delimiter = ',', max_insert_threads = 1"
)
# What the engine says of malformed lines: CANNOT_PARSE_…, INCORRECT_DATA, CANNOT_READ_ALL_DATA.
MALFORMED = {6, 25, 26, 27, 33, 117}


class MalformedError(Exception):
    """The lines of a file have to be told apart."""


@dataclass(frozen=True)
class Delivered:
    """A file's texts in a table aside: `line` is the expression of a row's number."""

    aside: str
    line: str
    is_judged: bool


class FileLoader:
    """Makes files ready within a load: the partitions of which `ready` says what they shall be.

    `aside` names a new table of the load's own; `set_aside` inserts into its quarantine.
    """

    def __init__(
        self,
        clickhouse: Clickhouse,
        ready: dict[tuple[str, str], ReadyPartition],
        aside: Callable[[str], str],
        set_aside: Callable[[str], int],
    ) -> None:
        self._clickhouse = clickhouse
        self._ready = ready
        self._aside = aside
        self._set_aside = set_aside
        self._registries: dict[str, dict[tuple[Slot, str], LandedFile]] = {}
        self._landed_at: dict[tuple[str, Slot, str], str] = {}

    def files(self, table: FileTable) -> list[LandedFile]:
        """See `Load.files`."""
        found = [f for f in self._registry(table.registry).values() if f.file == table.name]
        return sorted(found, key=lambda f: (f.slot.kind != "report", f.slot.day or date.min))

    def replace_slot(
        self, table: FileTable, slot: Slot, file: DeliveredFile | None, zone: ZoneInfo
    ) -> tuple[LandedFile | None, set[date]]:
        """See `Load.replace_slot`."""
        staged = self._aside(f"{table.name}__staged")
        make_aside(self._clickhouse, staged, table.name)
        landed = None
        if file is not None:
            rows, quarantined = self._staged(table, staged, slot, file, zone)
            days = self._days(staged) if table.identity is not None else {}
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
        changed: set[date] = set()
        if table.identity is None:
            self._put(table.name, SLOT_MONTH, staged, slot, {_month(slot)})
        else:
            changed = self._replace_dated(table, table.identity, staged, slot, landed)
        self._register(table, slot, landed)
        return landed, changed

    def keep_registries(self) -> None:
        """Make the changed registries ready; the last of what a load does."""
        for name, files in self._registries.items():
            aside = self._aside(name)
            make_aside(self._clickhouse, aside, name)
            rows = [self._registry_row(name, file) for file in files.values()]
            self._clickhouse.insert(
                f"insert into {named(WORK, aside)} format JSONEachRow",
                (json.dumps(row).encode() + b"\n" for row in rows),
            )
            self._ready[name, "tuple()"] = ReadyPartition(name, "tuple()", aside, len(rows))

    # --- from bytes to typed rows ---------------------------------------------------------------

    def _staged(
        self, table: FileTable, staged: str, slot: Slot, file: DeliveredFile, zone: ZoneInfo
    ) -> tuple[int, int]:
        """Have the typed rows of a file staged; how many, and how many are not."""
        content = open_csv(table, file.url, file.read())
        unknown = content.unknown(table.fields)
        if unknown:
            log.info("%s: columns that the contract does not know: %s", file.url, unknown)
        try:
            delivered = self._delivered(table, content)
        except MalformedError as error:
            log.info("%s: its lines are told apart (%s)", file.url, error)
            content = open_csv(table, file.url, file.read())
            delivered = self._delivered_apart(table, content, file.url)
        quarantined = self._judge(table, content, delivered, file.url)
        columns = ", ".join(named(column.name) for column in table.columns)
        values = values_of(table, zone)
        slot_values = {
            "slot_kind": quoted(slot.kind),
            "slot_date": f"toDate32('{slot.day}')" if slot.day else "null",
            "line_no": "line",
        }
        placed = ", ".join({**values, **slot_values}[column.name] for column in table.columns)
        usable = f"where {reason_of(table.fields)} is null" if quarantined else ""
        cells = cells_of(table.fields, named(WORK, delivered.aside), delivered.line, zone)
        self._run(
            f"insert into {named(WORK, staged)} ({columns}) select {placed} from {cells} {usable}"
            " settings max_partitions_per_insert_block = 0"
        )
        (rows,) = self._clickhouse.row(f"select count() from {named(WORK, staged)}")
        return rows, quarantined

    def _delivered(self, table: FileTable, content: CsvFile) -> Delivered:
        """Insert a file as it is. Raises MalformedError when its lines have to be told apart."""
        aside = self._create_delivered(table, content)
        cells = _cells(table, content)
        columns = ", ".join(map(named, cells))
        statement = f"insert into {named(WORK, aside)} ({columns}) {CSV} format CSV"
        try:
            self._clickhouse.insert(statement, whole_records(content.body))
        except IrregularError as error:
            raise MalformedError("a quote where none should be") from error
        except ClickhouseError as error:
            if error.code not in MALFORMED:
                raise
            raise MalformedError(f"ClickHouse's error {error.code}") from error
        no_text = " or ".join(
            f"not isValidUTF8(ifNull({name}, '')) or position(ifNull({name}, ''), char(0)) > 0"
            for name in map(named, cells)
        )
        parts = list(
            self._clickhouse.rows(
                f"select _part, count(), countIf({no_text}) from {named(WORK, aside)} group by _part"
            )
        )
        if any(no_texts for _, _, no_texts in parts):
            raise MalformedError("bytes that are no text")
        return Delivered(aside, _line_number(parts), is_judged=False)

    def _delivered_apart(self, table: FileTable, content: CsvFile, url: str) -> Delivered:
        """Insert a file record by record, what is malformed with the reason."""
        aside = self._create_delivered(table, content)
        cells = _cells(table, content)
        columns = ", ".join(map(named, (*JUDGED, *cells)))
        records = told_apart(url, content.body, len(content.columns))
        self._clickhouse.insert(
            f"insert into {named(WORK, aside)} ({columns}) {CSV} format CSV",
            judged_lines(records, len(cells)),
        )
        return Delivered(aside, "line_no", is_judged=True)

    def _create_delivered(self, table: FileTable, content: CsvFile) -> str:
        """Make the table of a file's texts: contract columns, known to it or not, and the others."""
        aside = self._aside(f"{table.name}__delivered")
        names = [field.name for field in table.fields]
        names += [cell for cell in _cells(table, content) if cell not in names]
        texts = ", ".join(f"{named(name)} Nullable(String)" for name in names)
        self._run(
            f"create table {named(WORK, aside)} (line_no Int64, _reason Nullable(String),"
            f" _payload Nullable(String), _encoding Nullable(String), {texts})"
            " engine = MergeTree order by tuple()"
            # Rows keep their places, by which they are numbered: nothing is merged.
            " settings max_bytes_to_merge_at_max_space_in_pool = 1,"
            " max_bytes_to_merge_at_min_space_in_pool = 1"
        )
        return aside

    def _judge(self, table: FileTable, content: CsvFile, delivered: Delivered, url: str) -> int:
        """Set aside the records that can't be used; returns how many that are."""
        source = cells_of(table.fields, named(WORK, delivered.aside), delivered.line)
        reason = reason_of(table.fields)
        (bad,) = self._clickhouse.row(f"select countIf({reason} is not null) from {source}")
        if not bad:
            return 0
        pairs = [
            f"concat({quoted(json.dumps(key, ensure_ascii=False) + ' : ')},"
            f" ifNull(toJSONString(nullIf({named(cell)}, '')), 'null'))"
            for key, cell in zip(content.columns, _cells(table, content), strict=True)
        ]
        payload = "concat('{', arrayStringConcat([" + ", ".join(pairs) + "], ', '), '}')"
        return self._set_aside(
            f"select line, concat({quoted(url + ':')}, toString(line)),"
            f" coalesce(_payload, {payload}), assumeNotNull({reason}),"
            f" coalesce(_encoding, 'text') from {source} where {reason} is not null"
            " settings output_format_json_escape_forward_slashes = 0"
        )

    # --- in the place of what the slot had ------------------------------------------------------

    def _replace_dated(
        self,
        table: FileTable,
        identity: Identity,
        staged: str,
        slot: Slot,
        landed: LandedFile | None,
    ) -> set[date]:
        """Make ready the days of the slot, old and new, and its copies; returns the days that can
        change: those of every copy of what was in the slot or is now, and, since an increment
        supersedes them, of the report's rows of its day."""
        days = set(landed.days) if landed else set()
        old = {day for file in self.files(table) if file.slot == slot for day in file.days}
        changed = old | days
        if slot.day is not None:
            changed.add(slot.day)
        copies = self._aside(f"{identity.copies}__staged")
        name = named(identity.name)
        make_aside(self._clickhouse, copies, identity.copies)
        self._run(
            f"insert into {named(WORK, copies)} ({name}, ds, slot_kind, slot_date, last_line_no)"
            f" select {name}, ds, slot_kind, slot_date, max(line_no) from {named(WORK, staged)}"
            f" group by {name}, ds, slot_kind, slot_date"
        )
        current = self._current(identity.copies, SLOT_MONTH)
        touched = [
            f"select {name} from {named(WORK, copies)}",
            f"select {name} from {current} where {_is_slot(slot)}",
        ]
        if slot.day is not None:
            touched.append(
                f"select {name} from {current}"
                f" where slot_kind = 'report' and ds = toDate32('{slot.day}')"
            )
        found = self._clickhouse.rows(
            f"select distinct ds from {current} where {name} in ({' union all '.join(touched)})"
        )
        changed.update(date.fromisoformat(day) for (day,) in found)
        self._put(identity.copies, SLOT_MONTH, copies, slot, {_month(slot)})
        self._put(table.name, "ds", staged, slot, {quoted(str(day)) for day in old | days})
        return changed

    def _put(
        self, table: str, key: str, staged: str, slot: Slot, partitions: Collection[str]
    ) -> None:
        """Write the other slots' rows of some partitions beside the slot's own, and have them ready."""
        if not partitions:
            return
        typed = [f"toDate32({p})" if p.startswith("'") else p for p in partitions]
        self._run(
            f"insert into {named(WORK, staged)} select * from {self._current(table, key)}"
            f" where {key} in ({', '.join(typed)}) and not {_is_slot(slot)}"
            " settings max_partitions_per_insert_block = 0"
        )
        counted = self._clickhouse.rows(
            f"select toString({key}), count() from {named(WORK, staged)} group by 1"
        )
        rows = dict(counted)
        for partition in partitions:
            count = rows.get(partition.strip("'"), 0)
            self._ready[table, partition] = ReadyPartition(table, partition, staged, count)

    def _current(self, table: str, key: str) -> str:
        """A table as this load sees it: partitions that are ready are taken from there."""
        asides: dict[str, list[str]] = {}
        for (name, partition), ready in self._ready.items():
            if name == table:
                typed = f"toDate32({partition})" if partition.startswith("'") else partition
                asides.setdefault(ready.aside, []).append(typed)
        hidden = ", ".join(typed for some in asides.values() for typed in some)
        parts = [
            f"select * from {named(RAW, table)}"
            + (f" where {key} not in ({hidden})" if hidden else "")
        ]
        parts += [
            f"select * from {named(WORK, aside)} where {key} in ({', '.join(some)})"
            for aside, some in asides.items()
        ]
        return f"({' union all '.join(parts)})"

    def _days(self, staged: str) -> dict[date, int]:
        rows = self._clickhouse.rows(
            f"select ds, count() from {named(WORK, staged)} group by ds order by ds"
        )
        return {date.fromisoformat(day): count for day, count in rows}

    # --- which files are in force ---------------------------------------------------------------

    def _registry(self, name: str) -> Mapping[tuple[Slot, str], LandedFile]:
        """The files in force, as this load sees them: few enough to be kept at hand."""
        if name not in self._registries:
            rows = self._clickhouse.rows(
                "select slot_kind, slot_date, days, file, delivery_id, url, etag, size_bytes,"
                f" rows_landed, rows_quarantined, landed_at from {named(RAW, name)}"
            )
            self._registries[name] = {}
            for kind, day, days, file, *others, landed_at in rows:
                slot = Slot(kind, date.fromisoformat(day) if day else None)
                held = {date.fromisoformat(d): n for d, n in json.loads(days).items()}
                self._registries[name][slot, file] = LandedFile(slot, held, file, *others)
                self._landed_at[name, slot, file] = landed_at
        return self._registries[name]

    def _register(self, table: FileTable, slot: Slot, landed: LandedFile | None) -> None:
        files = dict(self._registry(table.registry))
        files.pop((slot, table.name), None)
        if landed is not None:
            files[slot, table.name] = landed
            self._landed_at[table.registry, slot, table.name] = instant(datetime.now(UTC))
        self._registries[table.registry] = files

    def _registry_row(self, name: str, file: LandedFile) -> dict[str, Any]:
        return {
            "slot_kind": file.slot.kind,
            "slot_date": str(file.slot.day) if file.slot.day else None,
            "file": file.file,
            "delivery_id": file.delivery_id,
            "url": file.url,
            "etag": file.etag,
            "size_bytes": file.size_bytes,
            "rows_landed": file.rows_landed,
            "rows_quarantined": file.rows_quarantined,
            "days": json.dumps({str(day): rows for day, rows in sorted(file.days.items())}),
            "landed_at": self._landed_at[name, file.slot, file.file],
        }

    def _run(self, statement: str) -> None:
        self._clickhouse.run(statement)


def _cells(table: FileTable, content: CsvFile) -> tuple[str, ...]:
    """The columns of `delivered` for those of a file: the contract's by name, others by place."""
    known = {field.name for field in table.fields}
    return tuple(
        name if name in known else f"_cell_{place}" for place, name in enumerate(content.columns, 1)
    )


def _line_number(parts: Iterable[Sequence[Any]]) -> str:
    """The number of a row in the file: parts are written in its order, one a block."""
    names, before = [], []
    total = 0
    for name, rows, _ in sorted(parts, key=lambda part: int(part[0].split("_")[1])):
        names.append(quoted(name))
        before.append(str(total))
        total += rows
    if len(names) < 2:
        return "toInt64(_part_offset) + 1"
    return (
        f"toInt64(_part_offset) + 1"
        f" + transform(_part, [{', '.join(names)}], [{', '.join(before)}]::Array(Int64), -1)"
    )


def _is_slot(slot: Slot) -> str:
    date_is = f"slot_date = toDate32('{slot.day}')" if slot.day else "slot_date is null"
    return f"ifNull(slot_kind = {quoted(slot.kind)} and {date_is}, false)"


def _month(slot: Slot) -> str:
    """The partition of a slot in the tables that have one a month: see SLOT_MONTH."""
    return f"{slot.day:%Y%m}" if slot.day else "0"
