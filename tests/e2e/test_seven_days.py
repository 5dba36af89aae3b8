"""Seven days from the sources to the mart, cell by cell against the oracle, in any order."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, datetime, timedelta

import pytest

from sandbox.telemetry import insert_events
from sandbox.world import Sight, World
from tests.oracle.telemetry import client_history, client_telemetry, deduplicated, differences
from tests.support.vitrina import Vitrina

WORLD = World(seed=11, start=date(2024, 12, 2), days=7, clients=120, events_per_day=1_000)
DAYS = [WORLD.start + timedelta(days=n) for n in range(WORLD.days)]
# Each first landing looks back three days; the world has strays there.
LANDED = [WORLD.start - timedelta(days=n) for n in (3, 2, 1)] + DAYS
WEEK = WORLD.until(WORLD.midnight(WORLD.days))


def show(vitrina: Vitrina, sight: Sight) -> None:
    """Let the sources have more."""
    vitrina.outside.crm.serve(sight.records)
    insert_events(vitrina.outside.telemetry_url, sight.events)


def wrong_cells(vitrina: Vitrina, sight: Sight, days: Iterable[date] = LANDED) -> list[str]:
    """Where the mart is not what the oracle says for these sources."""
    expected = client_telemetry(sight.records, sight.events, WORLD.zone, list(days))
    assert expected
    return differences(expected, vitrina.mart())


@pytest.fixture
def week(vitrina: Vitrina) -> Vitrina:
    """Sources that hold all of the week, nothing landed."""
    show(vitrina, WEEK)
    return vitrina


def test_a_week_at_once_with_all_tests(week: Vitrina) -> None:
    week.land(WORLD.start, WORLD.end)
    done = week.dbt("build", "--select", "tag:telemetry")
    assert done.success, done.failures()
    assert wrong_cells(week, WEEK) == []


def test_the_ods_holds_each_event_once(week: Vitrina) -> None:
    week.land(WORLD.start, WORLD.end)
    week.build()
    columns = (
        "event_id",
        "client_id",
        "event_type",
        "duration_ms",
        "status",
        "session_id",
        "event_ts",
    )
    rows = week.query("select * from ods.ods_telemetry")
    actual = sorted(repr([row["ds"], *(row[c] for c in columns[:-1]), utc(row)]) for row in rows)
    expected = sorted(
        repr([day, *(as_double(c, event[c]) for c in columns[:-1]), event["event_ts"]])
        for day, events in deduplicated(WEEK.events, WORLD.zone).items()
        if day in LANDED
        for event in events
    )
    assert actual == expected


def utc(row: dict[str, datetime]) -> datetime:
    """The instant of a row, as the oracle writes it."""
    return row["event_ts"].astimezone(WORLD.midnight(0).tzinfo)


def as_double(column: str, value: object) -> object:
    """Durations are integers at this source and doubles in the warehouse."""
    return float(value) if column == "duration_ms" and isinstance(value, int) else value


def test_the_history_is_the_oracles(week: Vitrina) -> None:
    week.ingest("crm")
    week.build()
    names = ("segment", "country", "plan", "created_at", "updated_at", "valid_from", "valid_to")
    rows = week.query("select * from ods.ods_crm_clients_history order by client_id, valid_from")
    actual = [(row["client_id"], *(row[name] for name in names)) for row in rows]
    expected = [
        (version.id, *(getattr(version, name) for name in names))
        for versions in client_history(WEEK.records).values()
        for version in versions
    ]
    assert sorted(actual, key=lambda r: (r[0], r[6])) == sorted(
        expected, key=lambda r: (r[0], r[6])
    )
    current = week.query("select client_id, valid_from from ods.ods_crm_clients order by client_id")
    assert [(row["client_id"], row["valid_from"]) for row in current] == [
        (client, versions[-1].valid_from)
        for client, versions in sorted(client_history(WEEK.records).items())
    ]


def test_a_full_refresh_gives_the_same_tables(week: Vitrina) -> None:
    week.land(WORLD.start, WORLD.end)
    week.build_pending()
    before = week.tables()
    week.build([DAYS[2]], "--full-refresh")
    assert week.tables() == before
    week.build()
    assert week.tables() == before


def test_each_day_twice(week: Vitrina) -> None:
    for day in DAYS:
        week.nightly(day)
        before = week.tables()
        assert week.nightly(day) == []
        week.build([day])
        assert week.tables() == before
    assert wrong_cells(week, WEEK) == []


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_days_in_random_order(week: Vitrina, seed: int) -> None:
    days = [*DAYS, *DAYS[:2]]
    random.Random(seed).shuffle(days)
    for day in days:
        week.nightly(day)
    assert wrong_cells(week, WEEK) == []


def test_the_sources_fill_up_while_the_nights_go_by(vitrina: Vitrina) -> None:
    """Late events, late and repeated client versions, a night without a run, the run after it."""
    seen_until: datetime | None = None
    missed = 3
    for number, day in enumerate([*DAYS, WORLD.end]):
        now = WORLD.midnight(number + 1) + timedelta(hours=2)
        show(vitrina, WORLD.until(now, since=seen_until))
        seen_until = now
        if number != missed:
            vitrina.nightly(day)
    assert seen_until is not None
    sight = WORLD.until(seen_until)
    # The missed day's own run, a week late; and what the CRM dated back by more than the overlap.
    vitrina.nightly(DAYS[missed])
    vitrina.ingest("crm", "--start-date", "1970-01-02")
    vitrina.build_pending()
    assert wrong_cells(vitrina, sight, [*LANDED, WORLD.end]) == []
    # The same tables as from nothing, in one go.
    before = vitrina.tables()
    vitrina.build(None, "--full-refresh")
    assert vitrina.tables() == before


def test_nothing_landed_builds_empty_tables(vitrina: Vitrina) -> None:
    done = vitrina.dbt("build", "--select", "tag:telemetry")
    assert done.success, done.failures()
    assert vitrina.mart() == []
    assert vitrina.build_pending() == []


def test_a_plan_covers_exactly_what_a_late_version_changes(week: Vitrina) -> None:
    week.land(WORLD.start, WORLD.end)
    week.build_pending()
    client = "late-client"
    served = [
        {"id": client, "plan": "free", "created_at": "2024-11-01T00:00:00Z", "updated_at": None},
        {
            "id": client,
            "plan": "pro",
            "created_at": None,
            "updated_at": "2024-12-07T09:00:00+03:00",
        },
        # Served last, although it lies between the two.
        {
            "id": client,
            "plan": "basic",
            "created_at": None,
            "updated_at": "2024-12-04T09:00:00+03:00",
        },
    ]
    events = [
        {"event_id": f"late-{day}", "client_id": client, "event_ts": noon(day)} for day in DAYS
    ]
    insert_events(week.outside.telemetry_url, events)  # type: ignore[arg-type]
    week.outside.crm.serve(served[:2])
    week.ingest("crm", "--start-date", "2024-11-01")
    week.ingest("telemetry", "--start-date", str(WORLD.start), "--end-date", str(WORLD.end))
    assert week.build_pending() == DAYS
    week.outside.crm.serve(served[2:])
    landed = week.ingest("crm", "--start-date", "2024-11-01")
    assert landed["rows_landed"] == 1
    with_rows = [day for day in DAYS[2:5] if day != WORLD.quiet_day or events]
    assert (
        week.build_pending()
        == with_rows
        == [date(2024, 12, 4), date(2024, 12, 5), date(2024, 12, 6)]
    )
    plans = week.query(
        "select ds, plan from marts.dm_client_telemetry where client_id = %s order by ds", client
    )
    assert [row["plan"] for row in plans] == ["free", "free", *["basic"] * 3, *["pro"] * 2]


def noon(day: date) -> datetime:
    """Noon of a business day."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=WORLD.zone)
