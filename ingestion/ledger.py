"""The ledger: what was landed, which days that can change, and what is therefore left to build.

Pure logic on records that a sink reads and writes (`raw.loads`, `raw.builds`); see
docs/decisions/0003-ledger.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from ingestion.days import DayRanges, Window


@dataclass(frozen=True)
class LandedDay:
    """What a load left of one day: its rows, and a digest that differs where they do."""

    rows: int
    digest: str


@dataclass(frozen=True)
class LoadRecord:
    """A row of `raw.loads`. `load_id` grows in the order of the commits; 0 before it is recorded.

    `cursor` is the source's own (text values), `days` what each landed day holds since this load,
    `changed` the days whose tables this load can change. Instants are UTC. `not_yet`, which is not
    kept, says what of the request the source did not have yet; the rest was landed.
    """

    source: str
    window: Window | None
    rows_landed: int
    rows_quarantined: int
    changed: DayRanges
    started_at: datetime
    cursor: Mapping[str, str] = field(default_factory=dict)
    days: Mapping[date, LandedDay] = field(default_factory=dict)
    load_id: int = 0
    finished_at: datetime | None = None
    not_yet: str = ""


@dataclass(frozen=True)
class Build:
    """A row of `raw.builds`: the days that a build was planned for and, once finished, covered.

    `load_id` is the last load that the plan looked at: what came later stays pending. A plan is
    void for a bare `mark` once another was marked after it was made.
    """

    domain: str
    load_id: int
    days: tuple[date, ...]
    build_id: int = 0
    finished: bool = False
    void: bool = False


def landed_days(loads: Iterable[LoadRecord]) -> dict[date, LandedDay]:
    """The newest landing of each day, of the loads of one source (or of one table)."""
    days: dict[date, LandedDay] = {}
    for load in sorted(loads, key=lambda load: load.load_id):
        days.update(load.days)
    return days


def days_with_rows(loads: Collection[LoadRecord]) -> list[date]:
    """The days for which some source of `loads` holds rows, sorted."""
    return sorted(
        {
            day
            for source in {load.source for load in loads}
            for day, landed in landed_days(x for x in loads if x.source == source).items()
            if landed.rows
        }
    )


def changed_days(load: LoadRecord, candidates: Sequence[date]) -> set[date]:
    """The days that a load can change: its own, and those of `candidates`, which are sorted."""
    own = {day for day in load.days if day in load.changed}
    return own.union(load.changed.among(candidates))


def pending_days(loads: Collection[LoadRecord], builds: Iterable[Build]) -> list[date]:
    """The days that loads changed after the last finished build that covered them.

    `loads` and `builds` are those of one domain. A carried-forward change (a client's new plan)
    is pending for the days that hold rows; a day that was emptied is named by the load itself.
    """
    built_up_to: dict[date, int] = {}
    for build in builds:
        if build.finished:
            for day in build.days:
                built_up_to[day] = max(built_up_to.get(day, 0), build.load_id)
    # Newest first, each day once: a ledger of years is walked without asking for each day again.
    with_rows = set(days_with_rows(loads))
    unseen = sorted(with_rows.union(*(load.days for load in loads)))
    pending = []
    for load in sorted(loads, key=lambda load: load.load_id, reverse=True):
        changed = [
            day for day in load.changed.among(unseen) if day in with_rows or day in load.days
        ]
        pending += [day for day in changed if load.load_id > built_up_to.get(day, 0)]
        if changed:
            gone = set(changed)
            unseen = [day for day in unseen if day not in gone]
    return sorted(pending)


def build_to_mark(builds: Iterable[Build]) -> Build | None:
    """The build that a bare `mark` finishes: the oldest plan made since the last mark.

    Plans only grow until a build is marked, so whichever of them was built covers the oldest one:
    marking that can leave a day pending that needs it no more, never the other way round. Builders
    at work at the same time name theirs (`--build`): two that share a plan must not mark twice.
    """
    open_ones = [build for build in builds if not build.finished and not build.void]
    return min(open_ones, key=lambda build: build.build_id, default=None)
