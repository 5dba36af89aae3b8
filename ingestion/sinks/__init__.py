"""The contract of a warehouse, as landing sees it, and where to find the one in use."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

from ingestion.errors import UsageError
from ingestion.ledger import Build, LandedDay, LoadRecord
from ingestion.tables import DayTable, FileTable, RawTable, VersionTable

BulkFormat = Literal["pgcopy", "tsv"]
"""Bytes that a sink takes for a whole day: PostgreSQL's binary COPY; or ClickHouse's TabSeparated, which
is PostgreSQL's text COPY with doubles to their last digit and instants as naive texts of UTC. Every
sink takes `tsv`."""


@dataclass(frozen=True)
class Quarantined:
    """What could not be used: where it was, as it came (base64 when it is no text), and why not."""

    place: str
    payload: str
    reason: str
    encoding: Literal["text", "base64"] = "text"


@dataclass(frozen=True)
class Version:
    """A stored version of one record: its instants, and when it was served, now and before this load.

    `served_before` is None when this load added it; `served` differs from it when the version was
    served again after another with the same instant.
    """

    entity: str
    since: datetime
    created: datetime | None
    served: int
    served_before: int | None


@dataclass(frozen=True)
class Slot:
    """What a delivery replaces: the report, or the increment of a day."""

    kind: Literal["report", "increment"]
    day: date | None = None


@dataclass(frozen=True)
class DeliveredFile:
    """A file to be landed. `read` gives its bytes, from the beginning each time it is called."""

    delivery_id: str
    url: str
    etag: str
    size_bytes: int
    read: Callable[[], Iterator[bytes]] = field(repr=False)


@dataclass(frozen=True)
class LandedFile:
    """A file now in force: of which slot and table, which content, and its rows by business day.

    `days` is kept for tables with an identity only.
    """

    slot: Slot
    days: Mapping[date, int]
    file: str
    delivery_id: str
    url: str
    etag: str
    size_bytes: int
    rows_landed: int
    rows_quarantined: int


class Load(Protocol):
    """A load in progress: one transaction, or what the engine has for it, ended by the ledger's row.

    Loads of one source wait for each other. Leaving the block by an exception leaves the warehouse as it was.
    """

    bulk_format: BulkFormat

    def loads(self) -> list[LoadRecord]:
        """The finished loads of this source, oldest first."""
        ...

    def business_timezone(self, wanted: str) -> str:
        """The zone in which all days of this warehouse are cut: that of its first load."""
        ...

    def replace_day(
        self,
        table: DayTable,
        day: date,
        stream: Iterable[bytes],
        before: LandedDay | None,
        bulk_format: BulkFormat | None = None,
    ) -> LandedDay:
        """Replace one business day of `table` by a stream; constant memory.

        `bulk_format` is the stream's, by default the one that this sink prefers.

        Returns what is equal to `before`, the day as the ledger has it, if the rows are the same:
        a source is free to give them in another order.
        """
        ...

    def append_versions(
        self, table: VersionTable, rows: Iterable[Sequence[object]]
    ) -> tuple[int, Iterator[Version]]:
        """Append the versions that are not there yet, in the order served.

        Returns how many were added, and all stored versions of the records to which this load
        added one or for which it changed the order, sorted by (entity, since, served).
        """
        ...

    def quarantine(self, found: Iterable[Quarantined]) -> int:
        """Keep what is not kept yet (identical payloads as often as they were found); count all found."""
        ...

    def files(self, table: FileTable) -> list[LandedFile]:
        """The files of a table that are now in force, this load's among them."""
        ...

    def replace_slot(
        self, table: FileTable, slot: Slot, file: DeliveredFile | None, zone: ZoneInfo
    ) -> tuple[LandedFile | None, set[date]]:
        """Replace all rows of a slot by those of a file, or by none; constant memory.

        Returns the file as it is now in force, and, for a table with an identity, the days of
        which a row can be another: those of every copy of whatever was in the slot or is now.
        Records that can't be used are quarantined.

        Raises SourceError, which names the file and says why, when it can't be used as a whole.
        """
        ...

    def record(self, load: LoadRecord) -> None:
        """Write the ledger's row. The last step: without it the load did not happen."""
        ...


class Sink(Protocol):
    """A warehouse."""

    def init(self, tables: Iterable[RawTable]) -> None:
        """Make schemas, raw tables, ledger and outbox. Idempotent."""
        ...

    def load(self, source: str) -> AbstractContextManager[Load]:
        """Begin a load of a source; waits for one that is under way."""
        ...

    def loads(self, sources: Iterable[str]) -> list[LoadRecord]:
        """The ledger's rows of these sources, oldest first."""
        ...

    def builds(self, domain: str) -> list[Build]:
        """The planned and finished builds of a domain, oldest first."""
        ...

    def plan_build(self, build: Build) -> int:
        """Keep a plan; returns its number, that of an equal plan if the domain's newest one is open."""
        ...

    def finish_build(self, build_id: int) -> None:
        """Mark a planned build as finished; a bare `mark` takes none of the plans made until now."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


def open_sink(target: str) -> Sink:
    """Connect to the warehouse that `target` names; each is a module of this package with `connect()`.

    Raises UsageError for a target without a sink, SinkError when the warehouse does not answer.
    """
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    known = sorted(name for name in modules if not name.startswith("_"))
    if target not in known:
        raise UsageError(f"no sink for the target {target!r}; there is: {', '.join(known)}")
    sink: Sink = importlib.import_module(f"ingestion.sinks.{target}").connect()
    return sink
