"""The DAG `activity_slices`, without running it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

TABLES = ("feed_actions", "message_actions")


@pytest.fixture
def dag(dag_bag: DagBag) -> DAG:
    """The DAG of the activity domain."""
    return dag_bag.dags["activity_slices"]


def task_of(dag: DAG, task_id: str) -> Any:
    """A task, as whatever operator it is."""
    return dag.get_task(task_id)


def test_the_extractions_go_side_by_side_and_the_models_follow(dag: DAG) -> None:
    own = {task.task_id for task in dag.tasks if not task.task_id.startswith("models.")}
    assert own == {"land.feed_actions", "land.message_actions", "plan", "mark"}
    for table in TABLES:
        assert task_of(dag, f"land.{table}").upstream_task_ids == set()
    assert task_of(dag, "plan").upstream_task_ids == {f"land.{table}" for table in TABLES}
    models = {task.task_id for task in dag.tasks if task.task_id.startswith("models.")}
    assert models <= task_of(dag, "mark").get_flat_relative_ids(upstream=True)
    assert {"models.fct_user_activity.run", "models.activity_slices.test"} <= models
    assert "models.gender_codes_seed" in models or "models.gender_codes.seed" in models


@pytest.mark.parametrize("table", TABLES)
def test_mistake_a02_each_extraction_lands_the_runs_own_day(dag: DAG, table: str) -> None:
    """A02: today() and yesterday(). The 04:00 run of the 9th in Moscow lands the 8th, whenever it runs."""
    run = SimpleNamespace(
        run_type="scheduled",
        data_interval_start=datetime(2024, 12, 8, 1, tzinfo=UTC),
        logical_date=None,
    )
    context = {"dag_run": run, "params": {"start_date": None, "end_date": None}}
    arguments = task_of(dag, f"land.{table}").arguments(context)
    window = ["--start-date", "2024-12-08", "--end-date", "2024-12-09"]
    assert arguments == ["feed", "--table", table, *window]


def test_the_mart_is_an_asset(dag: DAG) -> None:
    outlets = [outlet.uri for outlet in task_of(dag, "mark").outlets]
    assert outlets == ["vitrina://marts/activity_slices"]


def test_the_connection_of_the_feed_is_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    from vitrina_dags.connections import CONNECTIONS

    connection = Connection(
        conn_id="feed_clickhouse",
        conn_type="http",
        host="feed.example",
        login="reader",
        password="p@ss/word",  # noqa: S106
        schema="social",
    )
    monkeypatch.delenv("FEED_CLICKHOUSE_URL", raising=False)
    assert CONNECTIONS["feed_clickhouse",](connection) == {
        "FEED_CLICKHOUSE_URL": "clickhouse://reader:p%40ss%2Fword@feed.example:8123/social"
    }


def test_people_are_told_what_it_is(dag: DAG) -> None:
    assert dag.doc_md
    assert set(dag.params) == {"start_date", "end_date"}
    assert "--table feed_actions" in task_of(dag, "land.feed_actions").doc_md
