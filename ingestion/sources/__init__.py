"""The sources: one module each. A module with a `SOURCE` in this package is all that a new one needs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal
from zoneinfo import ZoneInfo

from ingestion.days import Window
from ingestion.errors import UsageError
from ingestion.ledger import LoadRecord
from ingestion.sinks import Load
from ingestion.tables import RawTable


@dataclass(frozen=True)
class Request:
    """What a source is asked to land.

    `window` is None only for a source that goes by its own cursor and was given no dates, and for
    a report; `zone` is the business zone. `part` is the one of the source's parts that is meant, the
    source's own name where it has none. The others are of orders alone: its `mode`, the `task_id` of a report
    that is ready, whether files that did not change are read `again`, and the day `missing_from`
    which days before the window are landed too, each by itself, if they are not yet.
    """

    window: Window | None
    zone: ZoneInfo
    mode: Literal["report", "increment"] = "increment"
    task_id: str | None = None
    again: bool = False
    missing_from: date | None = None
    part: str = ""


@dataclass(frozen=True)
class Source:
    """A source of raw data.

    `land` does the whole load, up to and without the ledger's row, which it returns.
    `by_window` is False for a source that goes by its own cursor: there dates only move it back.
    `late` is what else is to be landed behind the request, each in a load of its own: one whose delivery
    can't be used is told of, and stops nobody.
    `parts` are what can be landed side by side: each is a load of its own, in the ledger by its name.
    `prepare` is what has to be waited for before the load begins, given the loads so far.
    """

    name: str
    domain: str
    tables: tuple[RawTable, ...]
    land: Callable[[Load, Request], LoadRecord]
    by_window: bool
    prepare: Callable[[Sequence[LoadRecord], Request], Request] | None = None
    late: Callable[[Load, Request], Sequence[Request]] | None = None
    parts: tuple[str, ...] = ()

    @property
    def loads(self) -> tuple[str, ...]:
        """The names by which the ledger knows its loads."""
        return self.parts or (self.name,)


def source_names() -> list[str]:
    """The names of all sources, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_source(name: str) -> Source:
    """The source of a name. Raises UsageError when there is none."""
    if name not in source_names():
        raise UsageError(f"no source is named {name!r}; there is: {', '.join(source_names())}")
    source: Source = importlib.import_module(f"ingestion.sources.{name}").SOURCE
    return source


def all_sources() -> list[Source]:
    """All sources."""
    return [find_source(name) for name in source_names()]


def sources_of(domain: str) -> list[Source]:
    """The sources of a domain. Raises UsageError when there is none."""
    sources = all_sources()
    found = [source for source in sources if source.domain == domain]
    if not found:
        domains = sorted({source.domain for source in sources})
        raise UsageError(f"no domain is named {domain!r}; there is: {', '.join(domains)}")
    return found
