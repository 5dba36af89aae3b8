"""Real Airflow processes on a real warehouse: after whatever a run went through, the mart is the oracle's.

States are read through the REST API. The world ends yesterday, so that the run which the scheduler
starts by itself, when the DAG is switched on, has a day to build.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.rows import dict_row

from ingestion.days import DAY
from sandbox.airflow import Airflow, airflow
from sandbox.outside import Outside
from sandbox.telemetry import insert_events
from sandbox.world import World
from tests.oracle.telemetry import client_telemetry, differences

T = TypeVar("T")
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
PATIENCE_SECONDS = 600
SETTINGS = {
    "VITRINA_RETRIES": "3",
    "VITRINA_RETRY_DELAY_SECONDS": "5",
    "VITRINA_THREADS": "2",
    "HTTP_BACKOFF_SECONDS": "0.01",
}


@dataclass(frozen=True)
class Live:
    """A running Airflow with the DAG, and what its runs have been asked to land so far."""

    airflow: Airflow
    world: Outside
    landed: set[date]

    def switch_on(self) -> dict[str, Any]:
        """Unpause the DAG; returns the run that the scheduler made of it, once it has ended well."""
        self.airflow.patch(f"dags/{DAG}", {"is_paused": False})
        (run,) = wait_for(lambda: self.runs("scheduled"))
        return self.succeeded(run["dag_run_id"])

    def trigger(self, day: date) -> str:
        """Start a run by hand for a day; returns its id."""
        noon = datetime.combine(day, clock(12), UTC)
        body = {"logical_date": noon.isoformat()}
        return str(self.airflow.post(f"dags/{DAG}/dagRuns", body)["dag_run_id"])

    def runs(self, kind: str) -> list[dict[str, Any]]:
        """The runs of a type, oldest first."""
        found = self.airflow.get(
            f"dags/{DAG}/dagRuns", run_type=kind, limit=100, order_by="run_after"
        )
        runs: list[dict[str, Any]] = found["dag_runs"]
        return runs

    def succeeded(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended, which has to be well."""

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self.airflow.get(f"dags/{DAG}/dagRuns/{run_id}")
            return run if run["state"] in ("success", "failed") else None

        run = wait_for(ended)
        assert run["state"] == "success", self.why(run_id)
        return run

    def why(self, run_id: str) -> str:
        """What is not well in a run, with the errors that its tasks logged."""
        lines = []
        for task_id, task in self.tasks(run_id).items():
            if task["state"] == "success":
                continue
            lines.append(f"{task_id}: {task['state']}, try {task['try_number']}")
            if task["state"] == "failed":
                log = self.airflow.get(
                    f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{task['try_number']}",
                    full_content="true",
                )
                errors = (line for line in log["content"] if line.get("level") == "error")
                lines.extend(
                    f"    {each['event']} {each.get('error_detail', '')}" for each in errors
                )
        return "\n".join(lines)

    def states(self, run_id: str) -> dict[str, str]:
        """The state of each task of a run."""
        return {task_id: str(task["state"]) for task_id, task in self.tasks(run_id).items()}

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The task instances of a run."""
        found = self.airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances", limit=200)
        return {task["task_id"]: task for task in found["task_instances"]}

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Rows of the warehouse."""
        url = self.world.postgres.url(self.world.warehouse)
        with psycopg.connect(url, row_factory=dict_row, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def check_mart(self, *days: date) -> None:
        """The mart is the oracle's for all that was landed: these days, their look-back, and before."""
        for day in days:
            self.landed.update(day - n * DAY for n in range(LOOKBACK + 1))
        expected = client_telemetry(
            ALL_OF_IT.records, ALL_OF_IT.events, MOSCOW, sorted(self.landed)
        )
        assert expected
        assert differences(expected, self.query("select * from marts.dm_client_telemetry")) == []


def wait_for(condition: Callable[[], T | None]) -> T:
    """What a condition gives, once it gives something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


@contextmanager
def live(world: Outside, **settings: str) -> Iterator[Live]:
    """An Airflow whose sources hold the whole world."""
    world.crm.serve(ALL_OF_IT.records)
    insert_events(world.telemetry_url, ALL_OF_IT.events)
    with airflow(world, timezone=WORLD.timezone, settings={**SETTINGS, **settings}) as running:
        yield Live(running, world, set())


def day_of(run: dict[str, Any]) -> date:
    """The business day on which a run's interval begins."""
    return datetime.fromisoformat(run["data_interval_start"]).astimezone(MOSCOW).date()


def in_states(states: dict[str, str], wanted: Iterable[str]) -> bool:
    """Whether no task is in another state."""
    return set(states.values()) <= set(wanted)


@pytest.mark.timeout(1800)
def test_watched_models(sources: Outside) -> None:
    """A scheduled interval, a past date by hand, a model that fails and is mended, a cleared task."""
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


def failing_then_mended(it: Live, run_id: str, task_id: str) -> None:
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
    """`airflow backfill create` over a week, a task a model, one day after another."""
    with live(sources, VITRINA_DBT_EXECUTION="local") as it:
        yesterday = day_of(it.switch_on())
        it.check_mart(yesterday)
        # An interval that begins at 02:00 of the 8th is named by that instant.
        first, last = WORLD.start, WORLD.start + 6 * DAY
        it.airflow.command(
            *("backfill", "create", "--dag-id", DAG, "--max-active-runs", "1"),
            *("--from-date", f"{first}T00:00:00+03:00", "--to-date", f"{last}T23:00:00+03:00"),
        )
        runs = wait_for(lambda: it.runs("backfill"))
        for run in runs:
            it.succeeded(run["dag_run_id"])
        assert [day_of(run) for run in runs] == [first + n * DAY for n in range(7)]
        it.check_mart(*(day_of(run) for run in runs))

        later = WORLD.start + 8 * DAY
        failing_then_mended(it, it.trigger(later), "models.dm_client_telemetry_model_build")
        it.check_mart(later)
