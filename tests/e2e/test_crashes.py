"""kill -9 of the loader and of dbt at random moments, and two runs at once: old days or new days,
never a mixture, and after a rerun the oracle's numbers."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from subprocess import Popen

import pytest

from sandbox.telemetry import TelemetryEvent, insert_events
from sandbox.world import World
from tests.oracle.telemetry import MartRow, client_telemetry, differences
from tests.support.vitrina import Vitrina

WORLD = World(seed=23, start=date(2024, 12, 2), days=3, clients=80, events_per_day=6_000)
DAYS = [WORLD.start + timedelta(days=n) for n in range(WORLD.days)]
WEEK = WORLD.until(WORLD.midnight(WORLD.days))
HALVES = WEEK.events[::2], WEEK.events[1::2]
LAND = (
    "-m",
    "ingestion",
    "telemetry",
    "--start-date",
    str(WORLD.start),
    "--end-date",
    str(WORLD.end),
)
TIMES = [pytest.param(5), pytest.param(50, marks=pytest.mark.long)]


@pytest.fixture
def half(vitrina: Vitrina) -> Vitrina:
    """Half of the events landed and built, the other half at the source."""
    vitrina.outside.crm.serve(WEEK.records)
    insert_events(vitrina.outside.telemetry_url, HALVES[0])
    vitrina.land(WORLD.start, WORLD.end)
    vitrina.build_pending()
    assert differences(oracle(HALVES[0]), vitrina.mart()) == []
    insert_events(vitrina.outside.telemetry_url, HALVES[1])
    return vitrina


def oracle(events: Sequence[TelemetryEvent]) -> list[MartRow]:
    """The mart of these events."""
    return client_telemetry(WEEK.records, events, WORLD.zone, DAYS)


def dbt_command(vitrina: Vitrina) -> tuple[str, ...]:
    """dbt in a process of its own, that says when a model starts."""
    arguments = ("run", "--select", "tag:telemetry", "--no-use-colors")
    paths = ("--profiles-dir", ".", "--target-path", str(vitrina.project.target_path))
    return "-c", "from dbt.cli.main import cli; cli()", *arguments, *paths


def killed(vitrina: Vitrina, process: Popen[bytes], after: str, seconds: float) -> None:
    """Kill -9 so many seconds after a line of its output, and wait until the server noticed."""
    assert process.stdout is not None
    for line in process.stdout:
        if after in line.decode():
            break
    time.sleep(seconds)
    process.kill()
    process.wait()
    process.stdout.close()
    others = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    while vitrina.query(others):
        time.sleep(0.02)


def rows_by_day(events: Sequence[TelemetryEvent]) -> dict[date, int]:
    """How many events each business day has."""
    instants = [event["event_ts"] for event in events]
    return dict(Counter(at.astimezone(WORLD.zone).date() for at in instants if at) & in_window())


def in_window() -> Counter[date]:
    """As many as you like of the window's days."""
    return Counter(dict.fromkeys(DAYS, 1_000_000))


def landed_rows(vitrina: Vitrina) -> dict[date, int]:
    """The same of what is landed."""
    rows = vitrina.query(
        "select ds, count(*) as rows from raw.telemetry_events where ds >= %s group by ds", DAYS[0]
    )
    return {row["ds"]: row["rows"] for row in rows}


def leftovers(vitrina: Vitrina) -> list[dict[str, object]]:
    """Tables that a run made and did not put in their place."""
    return vitrina.query(r"select relname from pg_class where relname ~ '__(new|stage|shape|rows)'")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", TIMES)
def test_kill_9_of_the_loader(half: Vitrina, times: int) -> None:
    chance = random.Random(times)
    old, new = rows_by_day(HALVES[0]), rows_by_day(WEEK.events)
    assert landed_rows(half) == old
    for _ in range(times):
        killed(half, half.process(*LAND), "rows", chance.uniform(0, 0.15))
        assert landed_rows(half) in (old, new)
    half.land(WORLD.start, WORLD.end)
    assert landed_rows(half) == new
    assert leftovers(half) == []
    half.build_pending()
    assert differences(oracle(WEEK.events), half.mart()) == []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("times", TIMES)
def test_kill_9_of_dbt(half: Vitrina, times: int) -> None:
    chance = random.Random(times)
    half.land(WORLD.start, WORLD.end)
    old, new = oracle(HALVES[0]), oracle(WEEK.events)
    for _ in range(times):
        process = half.process(*dbt_command(half), days=DAYS)
        killed(half, process, "START sql", chance.uniform(0, 1.2))
        rows = half.mart()
        assert rows
        # All days of a model are one transaction: the old ones or the new ones.
        assert differences(old, rows) == [] or differences(new, rows) == []
    assert leftovers(half) == []
    half.build_pending()
    assert differences(new, half.mart()) == []


def test_two_runs_at_once(half: Vitrina) -> None:
    loaders = [half.process(*LAND) for _ in range(2)]
    for loader in loaders:
        output, _ = loader.communicate(timeout=60)
        assert loader.returncode == 0, output.decode()
    assert landed_rows(half) == rows_by_day(WEEK.events)
    builders = [half.process(*dbt_command(half), days=DAYS) for _ in range(2)]
    for builder in builders:
        output, _ = builder.communicate(timeout=120)
        assert builder.returncode == 0, output.decode()
    assert differences(oracle(WEEK.events), half.mart()) == []
