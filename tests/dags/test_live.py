"""Real Airflow processes on a real warehouse: after whatever a run went through, the mart is the oracle's.

The world ends yesterday, so that the run which the scheduler starts by itself, when the DAG is
switched on, has a day to build.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingestion.cli import main as ingestion
from ingestion.days import DAY
from sandbox.airflow import airflow
from sandbox.dbt import environment
from sandbox.outside import Outside
from sandbox.telemetry import insert_events
from sandbox.world import World
from tests.dags.live import SETTINGS, Live, in_states, wait_for
from tests.oracle.telemetry import client_telemetry, differences

MOSCOW = ZoneInfo("Europe/Moscow")
DAYS = 10
WORLD = World(
    seed=41,
    start=datetime.now(MOSCOW).date() - timedelta(days=DAYS),
    days=DAYS,
    clients=60,
    events_per_day=400,
)
ALL_OF_IT = WORLD.until(WORLD.midnight(DAYS))
LOOKBACK = 3  # days that telemetry lands before a window
DAG = "crm_telemetry_mart"


@dataclass(frozen=True)
class Telemetry(Live):
    """The DAG of the telemetry domain, and what its runs have been asked to land so far."""

    landed: set[date] = field(default_factory=set)

    def check_mart(self, *days: date) -> None:
        """The mart is the oracle's for all that was landed: these days, their look-back, and before."""
        for day in days:
            self.landed.update(day - n * DAY for n in range(LOOKBACK + 1))
        expected = client_telemetry(
            ALL_OF_IT.records, ALL_OF_IT.events, MOSCOW, sorted(self.landed)
        )
        assert expected
        assert differences(expected, self.query("select * from marts.dm_client_telemetry")) == []


@contextmanager
def live(world: Outside, **settings: str) -> Iterator[Telemetry]:
    """An Airflow whose sources hold the whole world."""
    world.crm.serve(ALL_OF_IT.records)
    insert_events(world.telemetry_url, ALL_OF_IT.events)
    with airflow(world, timezone=WORLD.timezone, settings={**SETTINGS, **settings}) as running:
        yield Telemetry(running, world, DAG)


def backfilled(it: Telemetry, first: date, last: date) -> None:
    """`airflow backfill create` over days, one after another."""
    it.airflow.command(
        # An interval that begins at 02:00 of the 8th is named by that instant.
        *("backfill", "create", "--dag-id", DAG, "--max-active-runs", "1"),
        *("--from-date", f"{first}T00:00:00+03:00", "--to-date", f"{last}T23:00:00+03:00"),
    )
    runs = wait_for(lambda: it.runs("backfill"))
    for run in runs:
        it.succeeded(run["dag_run_id"])
    days = [day_of(run) for run in runs]
    assert days == [first + n * DAY for n in range((last - first).days + 1)]
    it.check_mart(*days)


def day_of(run: dict[str, Any]) -> date:
    """The business day on which a run's interval begins."""
    return datetime.fromisoformat(run["data_interval_start"]).astimezone(MOSCOW).date()


@pytest.mark.timeout(1800)
def test_watched_models(sources: Outside) -> None:
    """A scheduled interval, a past date by hand, a model that fails and is mended, a cleared task, a
    week of backfill."""
    with live(sources) as it:
        scheduled = it.switch_on()
        assert in_states(it.states(scheduled["dag_run_id"]), ["success"])
        it.check_mart(day_of(scheduled))

        past = WORLD.start + 4 * DAY
        run_id = it.trigger(past)
        it.succeeded(run_id)
        it.check_mart(past)

        later = WORLD.start + 5 * DAY
        failing_then_mended(it, it.trigger(later), "models.dm_client_telemetry.run")
        it.check_mart(later)

        it.query(f"delete from marts.dm_client_telemetry where ds = date '{past}'")
        it.airflow.post(
            f"dags/{DAG}/clearTaskInstances",
            {
                "dag_run_id": run_id,
                "task_ids": ["models.dm_client_telemetry.run"],
                "include_downstream": True,
                "only_failed": False,
                "dry_run": False,
            },
        )
        wait_for(lambda: it.tasks(run_id)["models.dm_client_telemetry.run"]["try_number"] > 1)
        it.succeeded(run_id)
        it.check_mart()
        a_plan_cleared_alone_is_not_marked(it, run_id)
        backfilled(it, WORLD.start, WORLD.start + 6 * DAY)


def a_plan_cleared_alone_is_not_marked(it: Telemetry, run_id: str) -> None:
    """A new plan, no model run for its days: it stays pending instead of being called built."""
    with environment(dict(it.airflow.environment)):
        assert ingestion(["telemetry", "--date", str(WORLD.start)]) == 0
    it.landed.update(WORLD.start - n * DAY for n in range(LOOKBACK + 1))
    for task_id in ("plan", "mark"):
        it.airflow.post(
            f"dags/{DAG}/clearTaskInstances",
            {
                "dag_run_id": run_id,
                "task_ids": [task_id],
                "only_failed": False,
                "dry_run": False,
            },
        )
        wait_for(lambda: it.airflow.get(f"dags/{DAG}/dagRuns/{run_id}")["state"] != "success")
        wait_for(
            lambda: it.airflow.get(f"dags/{DAG}/dagRuns/{run_id}")["state"] in ("success", "failed")
        )
    assert it.tasks(run_id)["mark"]["state"] == "failed"
    assert "clear the group models" in it.why(run_id)
    it.succeeded(it.trigger(WORLD.start + 6 * DAY))
    it.check_mart(WORLD.start + 6 * DAY)


def failing_then_mended(it: Telemetry, run_id: str, task_id: str) -> None:
    """Break the mart's relation, see its model fail, mend it, and see the run end well."""
    it.query("alter table marts.dm_client_telemetry rename column plan to broken")

    def first_try_failed() -> bool:
        states = it.states(run_id)
        assert "failed" not in states.values(), it.why(run_id)
        return states[task_id] == "up_for_retry"

    wait_for(first_try_failed)
    it.query("alter table marts.dm_client_telemetry rename column broken to plan")
    it.succeeded(run_id)
    assert it.tasks(run_id)[task_id]["try_number"] > 1


@pytest.mark.timeout(1800)
def test_strict_chain(sources: Outside) -> None:
    """A task a model: a scheduled interval, two days of backfill, a model that fails and is mended."""
    with live(sources, VITRINA_DBT_EXECUTION="local") as it:
        it.check_mart(day_of(it.switch_on()))
        backfilled(it, WORLD.start, WORLD.start + DAY)
        later = WORLD.start + 8 * DAY
        failing_then_mended(it, it.trigger(later), "models.dm_client_telemetry_model_build")
        it.check_mart(later)
