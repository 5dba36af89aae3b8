"""A running Airflow as a test sees it: states are read through the REST API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as clock
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from sandbox.airflow import Airflow
from sandbox.outside import Outside

T = TypeVar("T")
PATIENCE_SECONDS = 600
SETTINGS = {
    "VITRINA_RETRIES": "3",
    "VITRINA_RETRY_DELAY_SECONDS": "5",
    "VITRINA_THREADS": "2",
    "HTTP_BACKOFF_SECONDS": "0.01",
}


@dataclass(frozen=True)
class Live:
    """A running Airflow, its outside world, and the DAG that is looked at."""

    airflow: Airflow
    world: Outside
    dag: str

    def switch_on(self) -> dict[str, Any]:
        """Unpause the DAG; returns the run that the scheduler made of it, once it has ended well."""
        self.unpause()
        (run,) = wait_for(lambda: self.runs("scheduled"))
        return self.succeeded(run["dag_run_id"])

    def unpause(self) -> None:
        """Let the scheduler start the DAG's runs."""
        self.airflow.patch(f"dags/{self.dag}", {"is_paused": False})

    def trigger(self, day: date | None = None, **params: str) -> str:
        """Start a run by hand, for a day or with Params; returns its id."""
        noon = datetime.combine(day, clock(12), UTC).isoformat() if day else None
        body = {"logical_date": noon, "conf": params}
        return str(self.airflow.post(f"dags/{self.dag}/dagRuns", body)["dag_run_id"])

    def runs(self, kind: str) -> list[dict[str, Any]]:
        """The runs of a type, oldest first."""
        found = self.airflow.get(
            f"dags/{self.dag}/dagRuns", run_type=kind, limit=100, order_by="run_after"
        )
        runs: list[dict[str, Any]] = found["dag_runs"]
        return runs

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended."""

        def found() -> dict[str, Any] | None:
            run: dict[str, Any] = self.airflow.get(f"dags/{self.dag}/dagRuns/{run_id}")
            return run if run["state"] in ("success", "failed") else None

        return wait_for(found)

    def succeeded(self, run_id: str) -> dict[str, Any]:
        """The run, once it has ended, which has to be well."""
        run = self.ended(run_id)
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
                    f"dags/{self.dag}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{task['try_number']}",
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
        found = self.airflow.get(f"dags/{self.dag}/dagRuns/{run_id}/taskInstances", limit=200)
        return {task["task_id"]: task for task in found["task_instances"]}

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Rows of the warehouse."""
        url = self.world.postgres.url(self.world.warehouse)
        with psycopg.connect(url, row_factory=dict_row, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def wait_for(condition: Callable[[], T | None]) -> T:
    """What a condition gives, once it gives something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


def in_states(states: dict[str, str], wanted: Iterable[str]) -> bool:
    """Whether no task is in another state."""
    return set(states.values()) <= set(wanted)
