"""What can be told of the DAGs without running them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from ingestion.days import Window
from ingestion.errors import UsageError
from sandbox.dbt import ROOT
from tests.dags.conftest import DAGS, parse

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

MOSCOW = ZoneInfo("Europe/Moscow")
# The 02:00 run of the 9th in Moscow: its interval begins at 02:00 of the 8th.
INTERVAL_START = datetime(2024, 12, 7, 23, tzinfo=UTC)
THE_8TH = Window(date(2024, 12, 8), date(2024, 12, 9))


@pytest.fixture
def dag(dag_bag: DagBag) -> DAG:
    """The DAG of the telemetry domain."""
    return dag_bag.dags["crm_telemetry_mart"]


def task_of(dag: DAG, task_id: str) -> Any:
    """A task, as whatever operator it is."""
    return dag.get_task(task_id)


def timetable_of(dag: Any) -> Any:
    """The timetable, as whatever kind it is."""
    return dag.timetable


def context(
    run_type: str,
    *,
    start: datetime | None = None,
    logical: datetime | None = None,
    **params: str | None,
) -> dict[str, Any]:
    """What a task is given of its run."""
    run = SimpleNamespace(
        run_type=run_type, data_interval_start=start, logical_date=logical, start_date=None
    )
    return {"dag_run": run, "params": {"start_date": None, "end_date": None, **params}}


def window(given: dict[str, Any]) -> Window | None:
    """The days of a run."""
    from vitrina_dags.days import window_of_run

    return window_of_run(given)


def test_every_file_parses_without_a_database(dag_bag: DagBag, airflow_home: Path) -> None:
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == {path.stem for path in DAGS.glob("*.py")}
    assert not (airflow_home / "nothing.db").exists()


def test_parsing_starts_no_process_and_imports_no_dbt(dbt_folder: Path, tmp_path: Path) -> None:
    """What would cost seconds at each parse; how much CPU it takes is told by `make bench`."""
    program = (
        "import subprocess, sys\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "import vitrina_dags.domain, cosmos.airflow.task_group\n"
        "def refuse(*args, **kwargs): raise AssertionError(f'a process: {args}')\n"
        "subprocess.Popen.__init__ = refuse\n"
        f"bag = DagBag({str(DAGS)!r})\n"
        "print(bag.import_errors, sorted(bag.dags), {'dbt.cli.main', 'psycopg'} & set(sys.modules))"
    )
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(DAGS))),
        "VITRINA_DBT_DIR": str(dbt_folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(path.stem for path in DAGS.glob("*.py"))
    assert done.stdout.splitlines()[-1] == f"{{}} {names} set()"


def test_nothing_is_read_at_the_top_of_a_file() -> None:
    """Neither Variables, Connections nor drivers: those belong into tasks."""
    forbidden = {"psycopg", "asyncpg", "requests", "dbt", "ingestion", "sqlalchemy"}
    for path in [*DAGS.glob("*.py"), *DAGS.glob("vitrina_dags/*.py")]:
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0], *(a.name for a in node.names)}
            else:
                continue
            assert not names & (forbidden | {"Variable", "Connection"}), path
        assert len(path.read_text().splitlines()) < 250, path


def test_what_dags_share_is_not_parsed_as_a_dag(dag_bag: DagBag) -> None:
    assert {Path(found.fileloc).parent for found in dag_bag.dags.values()} == {DAGS}


def test_the_timetable_is_two_in_the_morning_of_the_business_zone(dag: DAG) -> None:
    from airflow.sdk import CronDataIntervalTimetable

    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.timetable.expression == "0 2 * * *"
    assert str(timetable_of(dag).timezone) == "Europe/Moscow"
    assert not dag.catchup
    assert dag.max_active_runs == 1


def test_the_business_zone_is_a_setting(dbt_folder: Path) -> None:
    dags = parse(dbt_folder, BUSINESS_TIMEZONE="America/New_York").dags
    assert str(timetable_of(dags["crm_telemetry_mart"]).timezone) == "America/New_York"


def test_the_tasks_and_their_order(dag: DAG) -> None:
    own = {task.task_id for task in dag.tasks if not task.task_id.startswith("models.")}
    assert own == {"land.crm", "land.telemetry", "plan", "mark"}
    assert task_of(dag, "plan").upstream_task_ids == {"land.crm", "land.telemetry"}
    assert task_of(dag, "models.dbt_producer_watcher").upstream_task_ids == {"plan"}
    assert task_of(dag, "mark").downstream_task_ids == set()
    models = {task.task_id for task in dag.tasks if task.task_id.startswith("models.")}
    # Nothing of the models but leads to the mark.
    assert models <= task_of(dag, "mark").get_flat_relative_ids(upstream=True)
    assert "models.dm_client_telemetry.run" in models
    assert "models.dm_client_telemetry.test" in models


def test_strict_chains_can_run_a_task_a_model(dbt_folder: Path) -> None:
    found = parse(dbt_folder, VITRINA_DBT_EXECUTION="local").dags["crm_telemetry_mart"]
    kinds = {type(task).__name__ for task in found.tasks if task.task_id.startswith("models.")}
    assert kinds == {"DbtBuildLocalOperator", "DbtTestLocalOperator"}


def test_tasks_are_called_what_their_nodes_are(dag: DAG) -> None:
    shown = {task.task_id: task.task_display_name for task in dag.tasks}
    assert shown["models.dbt_producer_watcher"] == "dbt build"
    assert shown["models.stg_telemetry_run"] == "stg_telemetry"


def test_a_misspelt_execution_is_refused(dbt_folder: Path) -> None:
    errors = parse(dbt_folder, VITRINA_DBT_EXECUTION="lokal").import_errors
    assert "'lokal', not one of watcher, local" in "".join(errors.values())


def test_a_missing_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    errors = parse(tmp_path).import_errors
    assert "make it: dbt parse" in "".join(errors.values())


def test_retries_grow_and_tests_have_none(dag: DAG) -> None:
    land = task_of(dag, "land.telemetry")
    assert land.retries == 3
    assert land.retry_delay == timedelta(minutes=1)
    assert land.retry_exponential_backoff == 2
    assert land.max_retry_delay == timedelta(minutes=30)
    tests = [task for task in dag.tasks if task.task_id.endswith("test")]
    assert tests
    assert {task.retries for task in tests} == {0}
    assert task_of(dag, "models.dm_client_telemetry.run").retries == 3


def test_the_mart_is_an_asset(dag: DAG) -> None:
    outlets = [outlet.uri for outlet in task_of(dag, "mark").outlets]
    assert outlets == ["vitrina://marts/dm_client_telemetry"]


def test_people_are_told_what_it_is(dag: DAG) -> None:
    assert dag.doc_md
    assert dag.description
    assert {"start_date", "end_date"} == set(dag.params)
    for task_id in ("land.crm", "land.telemetry", "plan", "mark"):
        assert "python -m ingestion" in (task_of(dag, task_id).doc_md or "")


def test_mistake_t01_the_day_of_a_run_never_comes_from_the_clock() -> None:
    """The same run gives the same day whenever it is looked at; the code asks no clock for it."""
    assert window(context("scheduled", start=INTERVAL_START)) == THE_8TH
    assert window(context("backfill", start=INTERVAL_START)) == THE_8TH
    source = (DAGS / "vitrina_dags" / "days.py").read_text()
    assert not re.search(r"\bnow\(|\btoday\(|utcnow|time\.time", source)


def test_mistake_t01_every_task_takes_its_days_from_the_same_place(dag: DAG) -> None:
    given = context("scheduled", start=INTERVAL_START)
    days = ["--start-date", "2024-12-08", "--end-date", "2024-12-09"]
    land, plan = task_of(dag, "land.telemetry"), task_of(dag, "plan")
    assert land.arguments(given) == ["telemetry", *days]
    assert plan.arguments(given) == ["plan", "telemetry", *days]
    assert task_of(dag, "land.crm").arguments(given) == ["crm"]


def test_mistake_t02_the_interval_begins_on_the_day_and_nothing_is_subtracted(dag: DAG) -> None:
    """From the timetable itself: the run that starts at 02:00 of the 9th is about the 8th."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable
    from pendulum import instance

    timetable = CronDataIntervalTimetable("0 2 * * *", timezone=timetable_of(dag).timezone)
    two_in_the_morning = datetime(2024, 12, 9, 2, tzinfo=MOSCOW)
    info = timetable.next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(
            earliest=instance(INTERVAL_START), latest=instance(two_in_the_morning), catchup=True
        ),
    )
    assert info is not None
    assert info.data_interval is not None
    assert info.run_after == two_in_the_morning
    assert window(context("scheduled", start=info.data_interval.start)) == THE_8TH


def test_mistake_t02_a_manual_date_means_that_day() -> None:
    noon = datetime(2024, 12, 8, 12, tzinfo=UTC)
    assert window(context("manual", logical=noon)) == THE_8TH
    assert window(context("operator_triggered", logical=noon)) == THE_8TH
    # 22:30 UTC of the 7th is the 8th in Moscow.
    late = datetime(2024, 12, 7, 22, 30, tzinfo=UTC)
    assert window(context("manual", logical=late)) == THE_8TH


def test_mistake_t02_a_mere_date_is_that_day_west_of_greenwich_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUSINESS_TIMEZONE", "America/New_York")
    assert window(context("manual", logical=datetime(2024, 12, 8, tzinfo=UTC))) == THE_8TH


@pytest.mark.parametrize("run_type", ["scheduled", "manual", "asset_triggered"])
def test_params_win(run_type: str) -> None:
    given = context(
        run_type,
        start=INTERVAL_START,
        logical=INTERVAL_START,
        start_date="2024-12-01",
        end_date="2025-01-01",
    )
    assert window(given) == Window(date(2024, 12, 1), date(2025, 1, 1))


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2024-12-01", None, "go together"),
        (None, "2024-12-01", "go together"),
        ("2024-12-01", "2024-12-01", "holds no day"),
    ],
)
def test_params_that_make_no_window_are_refused(
    start: str | None, end: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        window(context("manual", logical=INTERVAL_START, start_date=start, end_date=end))


def test_a_run_that_an_asset_started_has_no_day_of_its_own(dag: DAG) -> None:
    given = context("asset_triggered")
    assert window(given) is None
    assert task_of(dag, "plan").arguments(given) == ["plan", "telemetry"]
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException):
        task_of(dag, "land.telemetry").execute(given)


def failing(dag: DAG, task_id: str, error: Exception, **given: Any) -> str:
    """What the failure callback says."""
    from vitrina_dags.failures import failure_line

    ti = SimpleNamespace(
        dag_id=dag.dag_id,
        task_id=task_id,
        task=task_of(dag, task_id),
        xcom_pull=lambda **_: {"days": ["2024-12-05", "2024-12-08"], "build_id": 7},
    )
    run = context("scheduled", start=INTERVAL_START)
    return failure_line({**run, "ti": ti, "dag": dag, "exception": error, **given})


def test_a_failure_is_one_line_with_the_command_that_repeats_it(dag: DAG) -> None:
    assert failing(dag, "land.telemetry", ValueError("the source\nis down")) == (
        "crm_telemetry_mart.land.telemetry failed for [2024-12-08, 2024-12-09): the source is down;"
        " repeat: python -m ingestion telemetry --start-date 2024-12-08 --end-date 2024-12-09"
    )
    assert failing(dag, "mark", ValueError("x")).endswith(
        "repeat: python -m ingestion mark telemetry --build 7"
    )
    assert failing(dag, "models.dm_client_telemetry.run", ValueError("x")).endswith(
        "repeat: env VITRINA_DAYS=2024-12-05,2024-12-08 dbt build"
        " --select fqn:vitrina.marts.telemetry.dm_client_telemetry"
    )
    assert failing(dag, "models.dbt_producer_watcher", ValueError("x")).endswith(
        "repeat: env VITRINA_DAYS=2024-12-05,2024-12-08 dbt build --select tag:telemetry"
    )


def test_every_task_tells_of_its_failure(dag: DAG) -> None:
    from vitrina_dags import failures

    for task in dag.tasks:
        callbacks = task.on_failure_callback
        assert failures.tell in (callbacks if isinstance(callbacks, list | tuple) else [callbacks])


@pytest.mark.parametrize(
    ("status", "raised", "said"),
    [
        (2, "AirflowFailException", "the dates are wrong"),
        (1, "AirflowException", "the dates are wrong"),
        (3, "AirflowRescheduleException", None),
    ],
)
def test_exit_statuses(
    dag: DAG, monkeypatch: pytest.MonkeyPatch, status: int, raised: str, said: str | None
) -> None:
    from vitrina_dags import ingestion_tasks

    monkeypatch.setattr(ingestion_tasks, "settings_of_airflow", dict)
    monkeypatch.setattr(
        ingestion_tasks, "run_ingestion", lambda _: (status, "", "the dates are wrong")
    )
    given = context("scheduled", start=INTERVAL_START)
    given["dag_run"].data_interval_end = datetime.now(UTC)
    with pytest.raises(Exception, match=said) as caught:
        task_of(dag, "land.telemetry").execute(given)
    assert type(caught.value).__name__ == raised
    if status == 3:
        given["dag_run"].data_interval_end = datetime.now(UTC) - timedelta(days=1)
        with pytest.raises(Exception, match="waited") as caught:
            task_of(dag, "land.telemetry").execute(given)
        assert type(caught.value).__name__ == "AirflowFailException"


def test_a_command_runs_in_process_and_its_last_line_is_the_answer() -> None:
    from vitrina_dags.ingestion_tasks import run_ingestion

    status, output, error = run_ingestion(["telemetry", "--start-date", "2024-12-08"])
    assert (status, output) == (2, "")
    assert "--start-date and --end-date go together" in error
    assert run_ingestion(["no-such-source"])[0] == 2


def test_connections_and_variables_win_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.sdk import Connection

    from vitrina_dags import connections

    known = {
        "pg_connection": Connection(
            conn_id="pg_connection",
            conn_type="postgres",
            host="dwh",
            login="u",
            password="p",  # noqa: S106
        ),
        "telemetry_db": Connection(
            conn_id="telemetry_db",
            conn_type="postgres",
            host="src",
            port=6543,
            login="r@x",
            password="a/b",  # noqa: S106
            schema="events",
            extra='{"sslmode": "require"}',
        ),
    }
    monkeypatch.setattr(connections, "_connection", known.get)
    monkeypatch.setattr(
        "airflow.sdk.Variable.get",
        lambda name, default=None: {"CRM_API_URL": "http://crm"}.get(name, default),
    )
    assert connections.settings_of_airflow() == {
        "POSTGRES_HOST": "dwh",
        "POSTGRES_PORT": "5432",
        "POSTGRES_USER": "u",
        "POSTGRES_PASSWORD": "p",
        "POSTGRES_DB": "vitrina",
        "TELEMETRY_DB_URL": "postgresql://r%40x:a%2Fb@src:6543/events?sslmode=require",
        "CRM_API_URL": "http://crm",
    }


def test_a_test_of_several_models_is_no_model_s_own(dag: DAG) -> None:
    by_model = task_of(dag, "models.dbt_producer_watcher").tests_per_model
    several = "test.vitrina.assert_dm_client_telemetry_counts_every_event"
    assert by_model[several] == [several]
    assert not any(several in tests for model, tests in by_model.items() if model != several)
    assert by_model["model.vitrina.dm_client_telemetry"]


def test_the_producer_pushes_what_watchers_read_and_no_more(dag_bag: DagBag) -> None:
    del dag_bag
    from vitrina_dags.models import _push_less

    class Ti:
        def __init__(self) -> None:
            self.pushed: list[tuple[str, Any]] = []

        def xcom_push(self, key: str, value: Any) -> None:
            self.pushed.append((key, value))

    results = {
        "model.vitrina.a": {"test.vitrina.t": "pass", "test.vitrina.u": "fail"},
        "model.vitrina.b": {"test.vitrina.v": "failed"},
    }
    ti = Ti()
    _push_less(ti, SimpleNamespace(test_results_per_model=results))
    for key, value in [
        ("model__vitrina__a_dbt_event", {"status": "started"}),
        ("model__vitrina__a_dbt_event", {"status": "success"}),
        ("model__vitrina__a_status", {"status": "success"}),
        ("model__vitrina__a_status", {"status": "success"}),
        ("test__vitrina__t_dbt_event", {"status": "pass"}),
        ("unit_test__vitrina__x_status", {"status": "pass"}),
        ("model__vitrina__a_tests_status", "fail"),
        ("model__vitrina__b_tests_status", "fail"),
        ("task_status", "completed"),
    ]:
        ti.xcom_push(key=key, value=value)
    assert ti.pushed == [
        ("model__vitrina__a_dbt_event", {"status": "success"}),
        ("model__vitrina__a_status", {"status": "success"}),
        ("model__vitrina__a_tests_status", "fail"),
        ("task_status", "completed"),
    ]
