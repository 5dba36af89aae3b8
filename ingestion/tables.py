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


RawTable = DayTable | VersionTable
