"""What a raw table is, without naming an engine; each sink maps it to its own types and partitions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The types that landing needs."""

    TEXT = "text"
    BIGINT = "bigint"
    DOUBLE = "double"
    DATE = "date"
    INSTANT = "instant"  # microseconds, with its zone, kept in UTC
    QUANTITY = "quantity"  # exact, 18 digits of which 3 are decimals
    MONEY = "money"  # exact, major units, 18 digits of which 2 are decimals


# A delivered text that is one of the two, as each engine's regular expressions have it: engines know
# hexadecimal numbers too, underscores between digits, and exponents of which no two know the same.
NUMBER = r"^ *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?0*\d{1,3})? *$"


@dataclass(frozen=True)
class Column:
    """A column of a raw table; `nullable` as in SQL."""

    name: str
    kind: Kind
    nullable: bool = True


@dataclass(frozen=True)
class DayTable:
    """A table of events: partitioned by the business day `ds`, landed by replacing whole days.

    `columns` are those that a source streams, in order; the sink adds `ds` in front.
    """

    name: str
    columns: tuple[Column, ...]
    comment: str


@dataclass(frozen=True)
class VersionTable:
    """A table of the versions of a source's mutable records: only ever appended to.

    A version is identified by `key` (columns, among which `entity` names the record and `since` the
    instant from which the version holds). The sink adds `_served_no`, a number that orders versions
    by when they were last served: of two with equal `entity` and `since` the greater one holds.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    entity: str
    since: str
    created: str
    comment: str


@dataclass(frozen=True)
class Field:
    """A column of a delivered CSV file, and which of its cells are usable.

    An empty cell, quoted or not, is null. A naive instant is one of the business zone; numbers are
    rounded half away from zero. `needed`: a file without the column is refused. `required`: a null
    is not usable. `default` stands for a null, also where the column is missing. `allowed`: other
    values are not usable. `minimum`: the least usable number. `longest`: so many bytes a usable text
    has at most. `stored` is False for a column that only dates the row.
    """

    name: str
    kind: Kind = Kind.TEXT
    needed: bool = False
    required: bool = False
    default: str | None = None
    allowed: tuple[str, ...] = ()
    minimum: int | None = None
    longest: int | None = None
    stored: bool = True


@dataclass(frozen=True)
class Identity:
    """What makes a row of a file the same thing as another row, of whatever file.

    It is stored as the column `name`: the field `key`, or where that is null the MD5 of the typed
    fields `content` (see docs/decisions/0008-landing-orders.md). The table `copies` says where each
    one occurs.
    """

    name: str
    key: str
    content: tuple[str, ...]
    copies: str


@dataclass(frozen=True)
class FileTable:
    """A table of the records of delivered CSV files, landed by replacing all rows of a slot.

    The sink adds in front: `ds`, the business day of the instant `dated_by` (if there is one);
    `slot_kind`, `slot_date`, `line_no` (1 is the first record of the file); the identity (if there
    is one), by which it finds the days that a load changes. With an identity the table is
    partitioned by `ds`. Without a `header` the fields are in the file's order. The table
    `registry` says which files are in force.
    """

    name: str
    fields: tuple[Field, ...]
    registry: str
    comment: str
    dated_by: str | None = None
    identity: Identity | None = None
    header: bool = True

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns of the raw table, in order."""
        front = [
            Column("slot_kind", Kind.TEXT, nullable=False),
            Column("slot_date", Kind.DATE),
            Column("line_no", Kind.BIGINT, nullable=False),
        ]
        if self.identity is not None:
            front.append(Column(self.identity.name, Kind.TEXT, nullable=False))
        if self.dated_by is not None:
            # The partitions' key is in front, as in a DayTable.
            front.insert(
                0 if self.identity is not None else len(front),
                Column("ds", Kind.DATE, nullable=False),
            )
        stored = [field for field in self.fields if field.stored]
        return (*front, *(Column(f.name, f.kind, nullable=not f.required) for f in stored))


@dataclass(frozen=True)
class StateTable:
    """A small or keyed table that landing keeps for itself and for the models.

    `unique` columns (nulls are equal) name a row; `indexed` ones are compared by bytes.
    """

    name: str
    columns: tuple[Column, ...]
    comment: str
    unique: tuple[str, ...] = ()
    indexed: tuple[str, ...] = ()


RawTable = DayTable | VersionTable | FileTable | StateTable
