"""The models under Airflow and Cosmos, over a bare `dbt build` of the same selection and days."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any

from bench.measure import middle
from bench.report import Bar, Section, table
from sandbox.airflow import Airflow, airflow
from sandbox.outside import data_set, filled_outside

DAG = "crm_telemetry_mart"
BARE = "dbt build"
WAYS: dict[str, dict[str, str]] = {
    "Cosmos WATCHER": {},
    "Cosmos LOCAL": {"VITRINA_DBT_EXECUTION": "local"},
}
PATIENCE_SECONDS = 600


@dataclass
class Results:
    """Seconds by way: of the models alone, and of the whole run of the DAG; CPU of parsing all DAGs."""

    models: dict[str, list[float]] = field(default_factory=dict)
    run: dict[str, list[float]] = field(default_factory=dict)
    parse_cpu: float = 0.0


def compare(rounds: int, say: Callable[[str], None]) -> Results:
    """A run of the DAG for a past day in each way, and a bare build of that day, by turns."""
    results = Results()
    data = data_set("recent")
    # The day that the scheduler lands and builds first: landed again, it changes nothing, and the
    # plan is that day alone.
    day = data.end - timedelta(days=1)
    for way, settings in WAYS.items():
        settings = {**settings, "VITRINA_THREADS": "4"}
        with (
            filled_outside(data) as world,
            airflow(world, timezone=data.timezone, settings=settings) as running,
        ):
            running.patch(f"dags/{DAG}", {"is_paused": False})
            _ended(running, lambda: running.get(f"dags/{DAG}/dagRuns")["dag_runs"])
            for number in range(rounds):
                models, whole = _run(running, day, number)
                results.models.setdefault(way, []).append(models)
                results.run.setdefault(way, []).append(whole)
                bare = _bare(running, day)
                results.models.setdefault(f"{BARE} beside {way}", []).append(bare)
                say(f"{way}: {models:.1f} s, the whole run {whole:.1f} s; {BARE} {bare:.1f} s")
            results.parse_cpu = _parse_cpu(running)
    return results


def section(results: Results) -> Section:
    """What the page says of it."""
    rows, bars = [], []
    for way in WAYS:
        bare, models = (middle(results.models[name]) for name in (f"{BARE} beside {way}", way))
        whole = middle(results.run[way])
        rows.append(
            [way, f"{bare:.1f} s", f"{models:.1f} s", f"{models / bare:.2f}", f"{whole:.1f} s"]
        )
        bars += [
            Bar(f"{BARE} beside {way}", bare, f"{bare:.1f} s"),
            Bar(way, models, f"{models:.1f} s, {models / bare:.2f}×", ours=True),
        ]
    header = ["way", "bare `dbt build`, CLI", "the models' group", "ratio", "whole run of the DAG"]
    return Section(
        "The models under Airflow and Cosmos, over a bare `dbt build`",
        [
            "One day of the demo's world, 400 clients and 6,000 events: nearly all of it is start-up, so this"
            " is the price of orchestration and not of the SQL. The group runs from the start of its"
            " first task to the end of its last one; the whole run also lands, plans and marks.",
            table(header, rows),
            f"Parsing all DAGs takes {results.parse_cpu:.2f} s of CPU after imports.",
        ],
        bars,
    )


def _run(running: Airflow, day: date, number: int) -> tuple[float, float]:
    """Trigger a run for a day; seconds of the models' group, and of the run from start to end."""
    # No two runs have one logical date.
    body = {"logical_date": datetime.combine(day, clock(12, number), UTC).isoformat()}
    run_id = running.post(f"dags/{DAG}/dagRuns", body)["dag_run_id"]
    (run,) = _ended(running, lambda: [running.get(f"dags/{DAG}/dagRuns/{run_id}")])
    found = running.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances", limit=200)
    tasks = [t for t in found["task_instances"] if t["task_id"].startswith("models.")]
    return (
        _seconds(min(t["start_date"] for t in tasks), max(t["end_date"] for t in tasks)),
        _seconds(run["start_date"], run["end_date"]),
    )


def _ended(running: Airflow, runs: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = list(runs())
        if any(run["state"] == "failed" for run in found):
            raise RuntimeError(f"{DAG} failed; its logs: {running.home}/logs")
        if found and all(run["state"] == "success" for run in found):
            return found
        time.sleep(0.3)
    raise RuntimeError(f"{DAG} did not end within {PATIENCE_SECONDS} s")


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _bare(running: Airflow, day: date) -> float:
    """The command line on the same project folder, whose manifest is there."""
    project = running.environment["VITRINA_DBT_DIR"]
    command = [str(Path(sys.executable).with_name("dbt")), "--quiet", "build"]
    command += ["--select", "tag:telemetry", "--project-dir", project, "--profiles-dir", project]
    environment = {**os.environ, **running.environment, "VITRINA_DAYS": day.isoformat()}
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _parse_cpu(running: Airflow) -> float:
    program = (
        "import time\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "import os; folder = os.environ['AIRFLOW__CORE__DAGS_FOLDER']\n"
        "DagBag(folder)\n"
        "began = time.process_time(); DagBag(folder); print(time.process_time() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=dict(running.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])
