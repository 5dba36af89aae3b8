"""CSV files as streams of bytes: the header, blocks of whole records, bad lines told from good ones.

Nothing here knows an engine. Two ways through a file, both in constant memory: `whole_records`
passes blocks on as they came, and gives up at the first quote that is not where the format has it;
`told_apart` looks at each record and says what is wrong with it.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ingestion.errors import DeliveryError
from ingestion.tables import Field, FileTable

BLOCK_BYTES = 1 << 17
BOM = b"\xef\xbb\xbf"
LONGEST_HEADER = 1 << 16  # bytes
# In bytes. A quote that is open for longer is taken for one that never closes.
LONGEST_RECORD = 1 << 20
# What is told apart line by line is in memory: a file without lines shall not be.
LONGEST_LINE = 32 << 20

_QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'
# Quotes only around a whole cell, and doubled within.
_REGULAR = re.compile(rb'[^"]*+(?:(?<![^,\n])' + _QUOTED + rb'(?=[,\r\n])[^"]*+)*+')
_OPEN_CELL = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"?')
_CELL = rb"(?:" + _QUOTED + rb'|[^",\n]*+)'
_RECORD = re.compile(_CELL + rb"(?:," + _CELL + rb")*+")
_OPEN_RECORD = re.compile(rb"(?:" + _CELL + rb',)*+"[^"]*+(?:""[^"]*+)*+')
_EACH_CELL = re.compile(rb"(?:^|,)(" + _CELL + rb")")
_QUOTED_CELL = re.compile(_QUOTED)


class IrregularError(Exception):
    """The file is not quoted as it should be: it has to be looked at record by record."""


@dataclass(frozen=True)
class CsvFile:
    """An open file: the names of its columns, in its order, and the bytes after the header."""

    columns: tuple[str, ...]
    body: Iterator[bytes]

    def unknown(self, fields: Iterable[Field]) -> list[str]:
        """The columns that the contract does not know."""
        known = {field.name for field in fields}
        return [name for name in self.columns if name not in known]


def open_csv(table: FileTable, place: str, chunks: Iterable[bytes]) -> CsvFile:
    """Read the header of a file, by which its columns may be in any order, absent or new.

    Raises DeliveryError that names the file when there is none, or a needed column is not in it.
    """
    stream = iter(chunks)
    start = _at_least(b"", stream, len(BOM)).removeprefix(BOM)
    if not table.header:
        return CsvFile(tuple(field.name for field in table.fields), _joined(start, stream))
    while b"\n" not in start and len(start) < LONGEST_HEADER:
        more = next(stream, None)
        if more is None:
            break
        start += more
    line, _, rest = start.partition(b"\n")
    columns = _header(table, place, line.removesuffix(b"\r"))
    return CsvFile(columns, _joined(rest, stream))


def whole_records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks that end with a record, as long as all quotes are where they belong.

    Raises IrregularError otherwise.
    """
    rest = b""
    for chunk in chunks:
        block = rest + chunk
        end = _end_of_records(block)
        if end:
            yield block[:end]
        rest = block[end:]
        if len(rest) > LONGEST_RECORD:
            raise IrregularError
    if rest:
        if b'"' in rest and _end_of_records(rest + b"\n") != len(rest) + 1:
            raise IrregularError
        yield rest


@dataclass(frozen=True)
class Record:
    """A record without its line end, and what is wrong with it, if anything."""

    content: bytes
    problem: str | None = None

    @property
    def line(self) -> bytes:
        """The content as PostgreSQL takes it: a carriage return within a cell only if it is quoted."""
        if b"\r" not in self.content:
            return self.content
        cells = (cell[1] for cell in _EACH_CELL.finditer(self.content))
        return b",".join(c if c.startswith(b'"') else b'"%b"' % c for c in cells)

    @property
    def payload(self) -> tuple[str, str]:
        """The record as it came and how that is written: as text, or in base64 if it is none."""
        try:
            if b"\0" not in self.content:
                return self.content.decode(), "text"
        except UnicodeDecodeError:
            return base64.b64encode(self.content).decode("ascii"), "base64"
        return base64.b64encode(self.content).decode("ascii"), "base64"


def told_apart(place: str, chunks: Iterable[bytes], width: int) -> Iterator[Record]:
    """Each record of a file of `width` columns: a bad line takes none of its neighbours with it.

    Raises DeliveryError when the file ends within a line or a quoted cell.
    """
    for number, line in enumerate(_records(place, _lines(place, chunks)), 1):
        content = line.removesuffix(b"\n").removesuffix(b"\r")
        problem = _problem(content, width)
        if problem is not None and not line.endswith(b"\n") and _width(content) < width:
            raise DeliveryError(
                f"{place}: cut off in line {number}, the last one, which is too short"
            )
        yield Record(content, problem)


def judged_lines(records: Iterable[Record], width: int) -> Iterator[bytes]:
    """Records as CSV with four cells in front, number, problem, payload and its encoding: a good one
    as it came and with its number alone, of a bad one no cells."""
    block = bytearray()
    for number, record in enumerate(records, 1):
        if record.problem is None:
            block += b"%d,,,,%b\n" % (number, record.line)
        else:
            payload, encoding = record.payload
            line = io.StringIO()
            writer = csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="")
            writer.writerow((number, record.problem, payload, encoding))
            block += line.getvalue().encode() + b"," * width + b"\n"
        if len(block) >= BLOCK_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _header(table: FileTable, place: str, line: bytes) -> tuple[str, ...]:
    try:
        columns = tuple(next(csv.reader([line.decode()], strict=True), []))
    except (UnicodeDecodeError, csv.Error):
        columns = ()
    known = [field.name for field in table.fields]
    if not set(columns).intersection(known):
        raise DeliveryError(f"{place}: no header: its first line has none of {', '.join(known)}")
    missing = [f.name for f in table.fields if f.needed and f.name not in columns]
    if missing:
        raise DeliveryError(f"{place}: no column {', '.join(missing)}; it has {', '.join(columns)}")
    twice = sorted({name for name in columns if name in known and columns.count(name) > 1})
    if twice:
        raise DeliveryError(f"{place}: {', '.join(twice)} is in its header twice")
    return columns


def _at_least(start: bytes, stream: Iterator[bytes], size: int) -> bytes:
    while len(start) < size:
        more = next(stream, None)
        if more is None:
            break
        start += more
    return start


def _joined(start: bytes, stream: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from stream


def _end_of_records(block: bytes) -> int:
    """How many bytes of a block, which starts with a record, are whole records.

    Raises IrregularError for a quote that is neither around a cell nor doubled.
    """
    end = block.rfind(b"\n") + 1
    if b'"' not in block:
        return end
    regular = _REGULAR.match(block)
    assert regular is not None
    stop = regular.end()
    if stop < len(block):
        # Either a cell that is still open, or whose closing quote may yet prove to be a doubled one.
        is_first = stop == 0 or block[stop - 1 : stop] in (b",", b"\n")
        if not is_first or not _OPEN_CELL.fullmatch(block, stop):
            raise IrregularError
        end = block.rfind(b"\n", 0, stop) + 1
    while end and block.count(b'"', 0, end) % 2:  # a newline within a cell
        end = block.rfind(b"\n", 0, end - 1) + 1
    return end


def _lines(place: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Physical lines with their ends. Raises DeliveryError for one that fills the memory."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if max(map(len, (rest, *lines))) > LONGEST_LINE:
            raise DeliveryError(f"{place}: a line is longer than {LONGEST_LINE} bytes")
    if rest:
        yield rest


def _records(place: str, lines: Iterator[bytes]) -> Iterator[bytes]:
    """Records: a line, or several where a newline is within a quoted cell."""
    waiting: list[bytes] = []  # lines to be looked at again, the next one last
    number = 0
    while True:
        line = waiting.pop() if waiting else next(lines, None)
        if line is None:
            return
        number += 1
        if b'"' not in line or not _OPEN_RECORD.fullmatch(line):
            yield line
            continue
        parts = [line]
        size = len(line)
        while True:
            more = waiting.pop() if waiting else next(lines, None)
            if more is None or size > LONGEST_RECORD:
                raise DeliveryError(f"{place}: a quote is open at the end, since line {number}")
            parts.append(more)
            size += len(more)
            if b'"' not in more:
                continue
            record = b"".join(parts)
            if _OPEN_RECORD.fullmatch(record):
                continue
            if _RECORD.fullmatch(record.removesuffix(b"\n").removesuffix(b"\r")):
                yield record
            else:
                # The quote was a stray one: only its own line is bad.
                yield line
                waiting.extend(reversed(parts[1:]))
            break


def _width(content: bytes) -> int:
    return _QUOTED_CELL.sub(b"", content).count(b",") + 1


def _problem(content: bytes, width: int) -> str | None:
    if b'"' in content and not _RECORD.fullmatch(content):
        return "a quote that is neither around a cell nor doubled"
    found = _width(content)
    if found != width:
        return f"{found} cells where the file has {width} columns"
    if b"\0" in content:
        return "text with U+0000"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "text that is not UTF-8"
    return None
