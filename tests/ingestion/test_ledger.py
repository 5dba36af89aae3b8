"""Which days are left to build: `plan` and `mark` over a ledger in memory, and on a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from io import StringIO
from typing import Any

import pytest
from hypothesis import event as noted
from hypothesis import given
from hypothesis import strategies as st

from ingestion import cli
from ingestion.days import DayRanges
from ingestion.ledger import (
    Build,
    LandedDay,
    LoadRecord,
    build_to_mark,
    days_with_rows,
    pending_days,
)
from tests.ingestion.scene import DAY, DEC, arrive, december, event, noons, telemetry
from tests.support.vitrina import Vitrina

NOW = datetime(2024, 12, 31, tzinfo=UTC)


def events_load(load_id: int, rows: Mapping[date, int], *changed: date) -> LoadRecord:
    """A load of telemetry that left so many rows of each day and changed some of them."""
    return LoadRecord(
        source="telemetry",
        window=None,
        rows_landed=sum(rows.values()),
        rows_quarantined=0,
        changed=DayRanges.of_days(changed),
        started_at=NOW,
        days={day: LandedDay(count, str(load_id)) for day, count in rows.items()},
        load_id=load_id,
    )


def clients_load(load_id: int, start: date, end: date | None) -> LoadRecord:
    """A load of the CRM that can change the days [start, end)."""
    return replace(events_load(load_id, {}), source="crm", changed=DayRanges.merged([(start, end)]))


def built(load_id: int, *days: date) -> Build:
    return Build("telemetry", load_id, days, build_id=load_id, finished=True)


TWO_DAYS = events_load(1, {DEC[2]: 5, DEC[3]: 7, DEC[4]: 0}, DEC[2], DEC[3])


def test_changed_days_are_pending_until_built() -> None:
    assert pending_days([TWO_DAYS], []) == [DEC[2], DEC[3]]
    assert pending_days([TWO_DAYS], [built(1, DEC[2], DEC[3])]) == []


def test_a_plan_alone_builds_nothing() -> None:
    planned = replace(built(1, DEC[2], DEC[3]), finished=False)
    assert pending_days([TWO_DAYS], [planned]) == [DEC[2], DEC[3]]


def test_a_build_covers_only_its_days() -> None:
    assert pending_days([TWO_DAYS], [built(1, DEC[3])]) == [DEC[2]]


def test_a_load_after_the_plan_stays_pending() -> None:
    late = events_load(2, {DEC[3]: 8}, DEC[3])
    assert pending_days([TWO_DAYS, late], [built(1, DEC[2], DEC[3])]) == [DEC[3]]


def test_an_older_build_that_finishes_last_takes_nothing_back() -> None:
    late = events_load(2, {DEC[3]: 8}, DEC[3])
    finished = [built(2, DEC[2], DEC[3]), replace(built(1, DEC[3]), build_id=9)]
    assert pending_days([TWO_DAYS, late], finished) == []


def test_an_open_range_hits_days_with_rows_only() -> None:
    change = clients_load(2, DEC[3], None)
    assert days_with_rows([TWO_DAYS, change]) == [DEC[2], DEC[3]]
    assert pending_days([TWO_DAYS, change], [built(1, DEC[2], DEC[3])]) == [DEC[3]]


def test_an_open_range_hits_days_that_come_later_too() -> None:
    later = events_load(3, {DEC[9]: 1}, DEC[9])
    loads = [TWO_DAYS, clients_load(2, DEC[8], None), later]
    assert pending_days(loads, [built(1, DEC[2], DEC[3])]) == [DEC[9]]


def test_an_emptied_day_is_pending() -> None:
    emptied = events_load(2, {DEC[3]: 0}, DEC[3])
    assert days_with_rows([TWO_DAYS, emptied]) == [DEC[2]]
    assert pending_days([TWO_DAYS, emptied], [built(1, DEC[2], DEC[3])]) == [DEC[3]]


def test_bare_mark_picks_the_oldest_plan_made_since_the_last_mark() -> None:
    plans = [Build("telemetry", n, (DEC[2],), build_id=n) for n in range(1, 5)]
    assert build_to_mark([]) is None
    assert build_to_mark(reversed(plans)) == plans[0]
    # Marking the second voided the first: what was planned before a mark is not its business.
    plans[0], plans[1] = replace(plans[0], void=True), replace(plans[1], finished=True)
    assert build_to_mark(plans) == plans[2]
    assert build_to_mark([*plans[:2], *(replace(plan, void=True) for plan in plans[2:])]) is None


def test_a_long_ledger() -> None:
    """Three years of daily loads, each of the CRM's open to the right."""
    days = [date(2022, 1, 1) + n * DAY for n in range(1_000)]
    loads = [events_load(2 * n + 1, {day: 1}, day) for n, day in enumerate(days)]
    loads += [clients_load(2 * n + 2, day, None) for n, day in enumerate(days)]
    builds = [built(2 * n + 2, *days[: n + 1]) for n in range(1_000)]
    assert pending_days(loads, builds) == []
    assert pending_days(loads, builds[:-1]) == days[-1:]


# --- any sequence of loads, plans, builds and marks ---------------------------------------------


@dataclass
class Memory:
    """A warehouse of which only the ledger is there."""

    kept: list[LoadRecord] = field(default_factory=list)
    planned: list[Build] = field(default_factory=list)

    def loads(self, sources: list[str]) -> list[LoadRecord]:
        return [load for load in self.kept if load.source in sources]

    def builds(self, domain: str) -> list[Build]:
        return [build for build in self.planned if build.domain == domain]

    def plan_build(self, build: Build) -> int:
        self.planned.append(replace(build, build_id=len(self.planned) + 1))
        return len(self.planned)

    def finish_build(self, build_id: int) -> None:
        self.planned[build_id - 1] = replace(self.planned[build_id - 1], finished=True)

    def close(self) -> None:
        pass


@contextmanager
def commands_on(memory: Memory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "open_sink", lambda _target: memory)
        yield


def command(*arguments: str) -> dict[str, Any]:
    output = StringIO()
    with redirect_stdout(output):
        assert cli.main(arguments) == 0
    answer: dict[str, Any] = json.loads(output.getvalue())
    return answer


@dataclass
class Truth:
    """The naive model: a version of each day's content, and the one that its table was built from."""

    memory: Memory
    rows: dict[date, int] = field(default_factory=dict)
    content: dict[date, int] = field(default_factory=dict)
    table: dict[date, int] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    ran: bool = False

    def land_events(self, rows: Mapping[date, int]) -> None:
        changed = [day for day in rows if rows[day] != self.rows.get(day, 0)]
        self.rows.update(rows)
        for day in changed:
            self.content[day] = self.content.get(day, 0) + 1
        self.memory.kept.append(events_load(len(self.memory.kept) + 1, rows, *changed))

    def land_clients(self, start: date, end: date | None) -> None:
        for day, count in self.rows.items():
            if count and day >= start and (end is None or day < end):
                self.content[day] = self.content.get(day, 0) + 1
        self.memory.kept.append(clients_load(len(self.memory.kept) + 1, start, end))

    def make_plan(self, window: tuple[str, ...]) -> None:
        self.plan, self.ran = command("plan", "telemetry", *window), False

    def build(self) -> None:
        if self.plan:
            for day in map(date.fromisoformat, self.plan["days"]):
                self.table[day] = self.content.get(day, 0)
            self.ran = True

    def mark(self, *, bare: bool) -> None:
        if self.plan and self.ran and self.plan["build_id"] is not None:
            noted("marked bare" if bare else "marked by number")
            build = () if bare else ("--build", str(self.plan["build_id"]))
            command("mark", "telemetry", *build)
            self.plan = None

    def stale(self) -> set[date]:
        return {d for d, version in self.content.items() if version != self.table.get(d, 0)}


FIVE = st.sampled_from([DEC[n] for n in range(1, 6)])
STEPS = st.one_of(
    st.tuples(st.just("events"), st.dictionaries(FIVE, st.integers(0, 2), min_size=1)),
    st.tuples(st.just("clients"), st.tuples(FIVE, st.one_of(st.none(), FIVE))),
    st.tuples(st.just("plan"), st.one_of(st.none(), FIVE)),
    st.tuples(st.just("build"), st.none()),
    st.tuples(st.just("mark"), st.booleans()),
)


@given(st.lists(STEPS, max_size=25))
def test_no_changed_day_is_ever_forgotten(steps: list[tuple[str, Any]]) -> None:
    truth = Truth(Memory())
    with commands_on(truth.memory):
        for name, value in steps:
            match name:
                case "events":
                    truth.land_events(value)
                case "clients":
                    truth.land_clients(*value)
                case "plan":
                    truth.make_plan(("--date", str(value)) if value else ())
                case "build":
                    truth.build()
                case "mark":
                    truth.mark(bare=value)
            assert truth.stale() <= set(pending_days(truth.memory.kept, truth.memory.planned))
        # And it comes to rest: one more round leaves nothing to do.
        truth.make_plan(())
        truth.build()
        truth.mark(bare=False)
        assert truth.stale() == set()
        assert command("plan", "telemetry")["days"] == []


# --- the same on a warehouse ---------------------------------------------------------------------


def test_plan_and_mark(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(4, 5))
    telemetry(vitrina, DEC[5])
    plan = vitrina.ingest("plan", "telemetry")
    assert plan["days"] == plan["pending"] == december(4, 5)
    arrive(vitrina, [event("2024-12-04T13:00:00", "late")])
    telemetry(vitrina, DEC[5])
    marked = vitrina.ingest("mark", "telemetry", "--build", str(plan["build_id"]))
    assert marked["days"] == december(4, 5)
    assert marked["pending"] == december(4)
    assert vitrina.ingest("plan", "telemetry")["days"] == december(4)


def test_an_equal_plan_is_reused_and_bare_mark_finishes_it(vitrina: Vitrina) -> None:
    assert vitrina.ingest("plan", "telemetry")["build_id"] is None  # there is nothing to do
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    first = vitrina.ingest("plan", "telemetry")
    assert vitrina.ingest("plan", "telemetry") == first
    assert vitrina.ingest("mark", "telemetry")["build_id"] == first["build_id"]
    assert vitrina.ingest("mark", "telemetry")["build_id"] is None
    assert vitrina.ingest("plan", "telemetry")["days"] == []


def test_a_plan_takes_the_window_that_it_is_given(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5))
    telemetry(vitrina, DEC[5])
    plan = vitrina.ingest(
        "plan", "telemetry", "--start-date", str(DEC[8]), "--end-date", str(DEC[10])
    )
    assert plan["days"] == december(5, 8, 9)
    assert plan["pending"] == december(5)


@pytest.mark.parametrize("arguments", [("mark", "nothing"), ("plan", "nothing")])
def test_unknown_domain(vitrina: Vitrina, arguments: tuple[str, ...]) -> None:
    answer = vitrina.run(*arguments)
    assert (answer.status, answer.output) == (2, "")
    assert "telemetry" in answer.log  # the one that there is


def test_unknown_build(vitrina: Vitrina) -> None:
    answer = vitrina.run("mark", "telemetry", "--build", "77")
    assert (answer.status, answer.output) == (2, "")
    assert "77" in answer.log
