"""Records of a CSV file that need no second look, found by one regular expression for many of them.

It says that each cell has the shape that every engine reads in the same way, so that a file's bytes
may go where they are cast at once. Whatever it does not match is for somebody else to judge: nothing
is decided here, and no record becomes a Python object of its own.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from ingestion.csv_files import LONGEST_RECORD
from ingestion.tables import Field, FileTable, Kind

# A run of one day is a statement of its own: in files whose days lie scattered there would be too many.
RUN_BYTES = 1 << 15
FEW_RUNS = 64

_DAY = rb"(?!000[01]|9999)[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = rb"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{6})?+)?+"
# Without a sign it is not negative; so many digits fit, also when they are rounded up.
_NUMBER = rb"[0-9]{1,14}+(?:\.[0-9]{0,30}+)?+"
# A newline within a cell is left to those who look at records one by one.
_QUOTED = rb'"[^"\r\n]*+(?:""[^"\r\n]*+)*+"'
_TEXT = rb'(?:[^",\r\n]*+|' + _QUOTED + rb")"
_SOME_TEXT = rb'(?:[^",\r\n]++|(?!"")' + _QUOTED + rb")"
_END = rb"\r?+\n"


class UnusualError(Exception):
    """The file is not all of this kind; the message says what it is instead."""


def usual_records(table: FileTable, columns: Sequence[str]) -> re.Pattern[bytes]:
    """What whole blocks of usual records of a file match from end to end; a null is usual where the
    contract has a default, or needs no value."""
    known = {field.name: field for field in table.fields}
    cells = [_optional(known[name]) if name in known else _TEXT for name in columns]
    return re.compile(rb"(?:" + b",".join(cells) + rb"(?:" + _END + rb"|\Z))*+")


@dataclass(frozen=True)
class DayRuns:
    """How a file parts into runs of records of one day; `columns` are those that are kept of each.

    The identity's own cell is there once more, at the end: an engine that copies it from one column to
    another takes three times as long.
    """

    columns: tuple[str, ...]
    run: re.Pattern[bytes]
    kept: re.Pattern[bytes]
    template: bytes  # empty: the two groups of `kept`, all kept cells and the identity's

    def of(self, body: Iterable[bytes]) -> Generator[tuple[date, bytes]]:
        """The records with the kept cells alone, some of one day at a time, in the file's order.

        Raises UnusualError at the first record of another shape, and for days that lie scattered.
        """
        rest, runs, size, last = b"", 0, 0, b""
        for chunk in _with_end(body):
            block, place = rest + chunk, 0
            while found := self.run.match(block, place):
                if found[1] != last:
                    last, runs = found[1], runs + 1
                    if runs > FEW_RUNS and size < runs * RUN_BYTES:
                        raise UnusualError("its days lie scattered")
                yield _day(last), self._cut(block[place : found.end()])
                size += found.end() - place
                place = found.end()
            rest = block[place:]
            if b"\n" in rest or len(rest) > LONGEST_RECORD:
                raise UnusualError("a record needs a second look")
        if rest:
            raise UnusualError("its last record is no whole one")

    def _cut(self, records: bytes) -> bytes:
        if self.template:
            return self.kept.sub(self.template, records)
        return b"\n".join(map(b",".join, self.kept.findall(records))) + b"\n"


def day_runs(table: FileTable, columns: Sequence[str]) -> DayRuns | None:
    """How the usual records of a file with these columns part by day, if each has its identity."""
    if table.identity is None or table.dated_by is None or table.identity.key not in columns:
        return None
    known = {field.name: field for field in table.fields}
    cells = []
    for name in columns:
        cell = _cell(known[name]) if name in known else _TEXT
        if name in (table.identity.key, table.dated_by):
            cell = _key(known[name]) if name == table.identity.key else _DAY + _CLOCK
        cells.append(cell)
    place = columns.index(table.dated_by)

    def record(day: bytes) -> bytes:
        return b",".join([*cells[:place], day + _CLOCK, *cells[place + 1 :]]) + _END

    run = re.compile(record(rb"(" + _DAY + rb")") + rb"(?:" + record(rb"\1") + rb")*+")
    stored = [name in known and known[name].stored for name in columns]
    kept, template = _kept(stored, columns.index(table.identity.key))
    names = tuple(name for name, is_kept in zip(columns, stored, strict=True) if is_kept)
    return DayRuns(names, run, re.compile(kept), template)


def _kept(stored: Sequence[bool], key: int) -> tuple[bytes, bytes]:
    """A pattern of validated records, and what is put in their place, to keep some of their cells and
    that of the key once more."""
    first = stored.index(True)
    if all(stored[first:]):
        # Without a look ahead an empty cell would be found before a quote.
        cell = rb"(" + _TEXT + rb")(?=[,\r\n])"
        kept = (_TEXT + b",") * (key - first) + cell + rb"[^\r\n]*+"
        return (_TEXT + b",") * first + b"(" + kept + b")" + _END, b""
    cells = [b"(" + _TEXT + b")" if is_kept else _TEXT for is_kept in stored]
    groups = [rb"\%d" % (number + 1) for number in range(sum(stored))]
    groups.append(groups[sum(stored[:key])])
    return b",".join(cells) + _END, b",".join(groups) + rb"\n"


def _cell(field: Field) -> bytes:
    """The pattern of a column's usual cells, without nulls where one would need a default."""
    if field.allowed:
        usual = rb"(?:" + b"|".join(re.escape(value.encode()) for value in field.allowed) + rb")"
    elif field.kind is Kind.INSTANT:
        usual = _DAY + _CLOCK
    elif field.kind in (Kind.QUANTITY, Kind.MONEY):
        usual = _NUMBER
    elif field.longest is not None:
        return _short(field.longest) if field.required else b"(?:" + _short(field.longest) + b")?+"
    else:
        return _SOME_TEXT if field.required else _TEXT
    cell = rb"(?:" + usual + rb'|"' + usual + rb'")'
    return cell if field.required else rb"(?:" + cell + rb")?+"


def _key(field: Field) -> bytes:
    """The pattern of an identity's own cell."""
    return _SOME_TEXT if field.longest is None else _short(field.longest)


def _short(longest: int) -> bytes:
    """The pattern of a text of some bytes and not too many, which holds no quote."""
    return rb'(?:[^",\r\n]{1,%d}+|"[^"\r\n]{1,%d}+")' % (longest, longest)


def _optional(field: Field) -> bytes:
    """The same, with nulls where the contract has a default."""
    cell = _cell(field)
    return cell if field.default is None else rb"(?:" + cell + rb'|"")?+'


def _day(text: bytes) -> date:
    try:
        return date.fromisoformat(text.decode())
    except ValueError:
        raise UnusualError(f"{text.decode()} is no day") from None


def _with_end(body: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, with a newline at their end."""
    last = b"\n"
    for chunk in body:
        if chunk:
            last = chunk
            yield chunk
    if not last.endswith(b"\n"):
        yield b"\n"
