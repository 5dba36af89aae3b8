"""What can be told of the orders' DAGs without running them."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.outside import Outside
from tests.dags.conftest import parse
from tests.dags.test_structure import INTERVAL_START, MOSCOW, context, task_of, timetable_of

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG


@pytest.fixture
def increment(dag_bag: DagBag) -> DAG:
    """The DAG of the increments."""
    return dag_bag.dags["orders_increment"]


@pytest.fixture
def backfill(dag_bag: DagBag) -> DAG:
    """The DAG of the report."""
    return dag_bag.dags["orders_backfill"]


def test_increments_catch_up_one_day_after_another(dbt_folder: Path) -> None:
    dag = parse(dbt_folder, ORDERS_START_DATE="2024-11-30").dags["orders_increment"]
    assert dag.catchup
    assert dag.max_active_runs == 1
    assert dag.start_date == datetime(2024, 11, 30, tzinfo=MOSCOW)
    assert (timetable_of(dag).expression, str(timetable_of(dag).timezone)) == (
        "0 3 * * *",
        "Europe/Moscow",
    )


def test_the_first_task_asks_for_earlier_days_too(dbt_folder: Path) -> None:
    dag = parse(dbt_folder, ORDERS_START_DATE="2024-11-30").dags["orders_increment"]
    arguments = task_of(dag, "land").arguments(context("scheduled", start=INTERVAL_START))
    days = ["--start-date", "2024-12-08", "--end-date", "2024-12-09"]
    assert arguments == ["orders", "--missing-from", "2024-11-30", *days]


def test_what_can_not_be_used_is_red_and_stops_nothing(increment: DAG) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from vitrina_dags.failures import failure_line

    earlier = task_of(increment, "earlier_days")
    assert earlier.upstream_task_ids == {"land"}
    assert not earlier.downstream_task_ids
    given = context("scheduled", start=INTERVAL_START)
    answer: dict[str, Any] = {"rows_landed": 1}
    given["ti"] = SimpleNamespace(
        xcom_pull=lambda task_ids: {"land": answer}[task_ids],
        task=earlier,
        dag_id=increment.dag_id,
        task_id=earlier.task_id,
    )
    earlier.execute(given)
    answer["unusable"] = {"2024-12-03": "http://s3/k.csv: no column city_id"}
    with pytest.raises(
        AirflowFailException, match=r"2024-12-03 can't be used: .*no column city_id"
    ):
        earlier.execute(given)
    line = failure_line(given)
    assert "orders_increment.earlier_days failed for [2024-12-08, 2024-12-09)" in line
    assert "repeat: python -m ingestion orders --missing-from" in line


@pytest.mark.parametrize(
    ("run_type", "due", "raised"),
    [
        ("scheduled", timedelta(hours=7), "AirflowRescheduleException"),
        ("scheduled", timedelta(hours=9), "AirflowSkipException"),
        # A run that catches up began just now, and is late all the same.
        ("scheduled", timedelta(days=90), "AirflowSkipException"),
        ("manual", timedelta(days=90), "AirflowRescheduleException"),
    ],
)
def test_mistake_o12_a_day_that_is_not_there_is_waited_for_then_skipped(
    increment: DAG, monkeypatch: pytest.MonkeyPatch, run_type: str, due: timedelta, raised: str
) -> None:
    from vitrina_dags import ingestion_tasks

    monkeypatch.setattr(ingestion_tasks, "settings_of_airflow", dict)
    monkeypatch.setattr(ingestion_tasks, "run_ingestion", lambda _: (3, "", "no 2024-12-08 yet"))
    given = context(run_type, start=INTERVAL_START, logical=INTERVAL_START)
    given["dag_run"].data_interval_end = datetime.now(UTC) - due
    given["dag_run"].start_date = datetime.now(UTC)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        task_of(increment, "land").execute(given)
    assert type(caught.value).__name__ == raised


def test_a_skipped_landing_does_not_keep_what_is_pending_from_being_built(
    increment: DAG, backfill: DAG
) -> None:
    from airflow.sdk import TriggerRule

    assert task_of(increment, "plan").trigger_rule == TriggerRule.NONE_FAILED
    assert task_of(backfill, "plan").trigger_rule == TriggerRule.NONE_FAILED


def test_mistake_o10_ids_pass_from_task_to_task_and_through_no_variable(backfill: DAG) -> None:
    """The old pipeline kept task, report and increment ids in global Variables: runs raced."""
    order = ["request", "ready", "land_report", "land_increments", "plan"]
    for task_id, next_one in pairwise(order):
        assert next_one in task_of(backfill, task_id).downstream_task_ids
    given = context("manual", start_date="2024-12-01", end_date="2024-12-31")
    given["ti"] = SimpleNamespace(xcom_pull=lambda task_ids: {"request": "T="}[task_ids])
    assert task_of(backfill, "land_report").arguments(given) == [
        "orders",
        *("--mode", "report", "--task-id", "T="),
    ]
    for path in (parse.__globals__["DAGS"] / "vitrina_dags").glob("*.py"):
        assert "Variable.set" not in path.read_text()
    assert task_of(backfill, "land_increments").arguments(given)[1:] == [
        *("--start-date", "2024-12-01", "--end-date", "2024-12-31"),
    ]


def test_a_backfill_wants_a_range(backfill: DAG) -> None:
    assert timetable_of(backfill).can_be_scheduled is False
    with pytest.raises(Exception, match="start_date"):
        backfill.params.validate()


def test_connections_of_the_order_source(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    from vitrina_dags import connections

    known = {
        "http_conn_id": Connection(
            conn_id="http_conn_id",
            conn_type="http",
            host="https://reports.example",
            port=8443,
            extra='{"api_key": "k", "nickname": "n", "cohort": "3"}',
        ),
        "s3_conn": Connection(
            conn_id="s3_conn",
            conn_type="aws",
            login="id",
            password="secret",  # noqa: S106
            extra='{"endpoint_url": "https://s3.example"}',
        ),
    }
    monkeypatch.setattr(connections, "_connection", known.get)
    monkeypatch.setattr("airflow.sdk.Variable.get", lambda _name, default=None: default)
    assert connections.settings_of_airflow() == {
        "REPORTS_API_URL": "https://reports.example:8443",
        "REPORTS_API_KEY": "k",
        "REPORTS_NICKNAME": "n",
        "REPORTS_COHORT": "3",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "S3_ENDPOINT_URL": "https://s3.example",
    }


@pytest.fixture
def report_source(sources: Outside, monkeypatch: pytest.MonkeyPatch) -> Outside:
    """A report API that answers, and settings that are impatient."""
    _ = sources.reports
    for name, value in {**sources.environment(), "REPORTS_POLL_SECONDS": "0.01"}.items():
        monkeypatch.setenv(name, value)
    from vitrina_dags import reports

    monkeypatch.setattr(reports, "settings_of_airflow", dict)
    return sources


def outcome_of(task_id: str) -> dict[str, str]:
    """What the triggerer would hand to the sensor."""
    from vitrina_dags.reports import ReportTrigger

    async def events() -> list[Any]:
        return [event.payload async for event in ReportTrigger(task_id).run()]

    (found,) = asyncio.run(events())
    return dict(found)


def test_mistake_o12_the_trigger_polls_until_the_report_is_there(report_source: Outside) -> None:
    from sandbox.reports import Call, Settings
    from sandbox.shop import Shop
    from vitrina_dags.reports import RequestReportOperator

    shop = Shop(seed=1, start=date(2024, 12, 1), days=2, customers=5, orders_per_day=3)
    report_source.reports.deliver(shop.report(shop.end))
    report_source.reports.settings = Settings(running_looks=3)
    task_id = RequestReportOperator(task_id="request").execute({})
    assert "report_id" in outcome_of(task_id)
    assert report_source.reports.asked(Call.GET_REPORT) == 4


def test_a_report_that_fails_fails_the_sensor_at_once(report_source: Outside) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from vitrina_dags.reports import ReportReadySensor, RequestReportOperator

    report_source.reports.end_next_tasks("FAILED")
    task_id = RequestReportOperator(task_id="request").execute({})
    event = outcome_of(task_id)
    assert "FAILED" in event["failed"]
    with pytest.raises(AirflowFailException, match="FAILED"):
        ReportReadySensor(task_id="ready").execute_complete({}, event)


def test_an_outage_of_the_report_api_is_waited_out(
    report_source: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from sandbox.reports import Settings
    from vitrina_dags.reports import ReportReadySensor, RequestReportOperator

    monkeypatch.setenv("HTTP_RETRIES", "0")
    task_id = RequestReportOperator(task_id="request").execute({})
    report_source.reports.settings = Settings(failure_every=1, retry_after=None)
    event = outcome_of(task_id)
    assert "503" in event["error"]
    with pytest.raises(AirflowException, match="503") as caught:
        ReportReadySensor(task_id="ready").execute_complete({}, event)
    # It would end the wait, whatever tries the task has left.
    assert not isinstance(caught.value, AirflowFailException)


def test_no_key_is_stored_with_the_trigger(report_source: Outside) -> None:
    from vitrina_dags.reports import ReportTrigger

    path, kept = ReportTrigger("T=").serialize()
    assert path == "vitrina_dags.reports.ReportTrigger"
    assert kept == {"task_id": "T="}
    assert ReportTrigger(**kept).report_task_id == "T="
    assert report_source.environment()["REPORTS_API_KEY"] not in str(kept)
