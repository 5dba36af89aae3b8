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


class FakeTi:
    """A task instance: its XComs, and what the tasks before it have left."""

    def __init__(
        self,
        dag: DAG,
        task_id: str,
        plan: dict[str, Any] | None,
        built: dict[str, int] | None = None,
    ) -> None:
        self.dag_id, self.task_id, self.task = dag.dag_id, task_id, task_of(dag, task_id)
        self.plan, self.built = plan, built or {}
        self.pushed: dict[str, Any] = {}

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        return self.plan if key == "return_value" else self.built.get(task_ids)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


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
        "repeat: env VITRINA_DAYS=2024-12-05,2024-12-08 dbt build --target postgres"
        " --select fqn:vitrina.marts.telemetry.dm_client_telemetry"
    )
    assert failing(dag, "models.dbt_producer_watcher", ValueError("x")).endswith(
        "repeat: env VITRINA_DAYS=2024-12-05,2024-12-08 dbt build --target postgres"
        " --select tag:telemetry"
    )


def test_a_year_of_days_is_named_by_its_ends(dag: DAG) -> None:
    days = [str(date(2024, 1, 1) + timedelta(days=n)) for n in range(366)]
    ti = FakeTi(dag, "models.dbt_producer_watcher", plan={"days": days, "build_id": 1})
    assert failing(dag, ti.task_id, ValueError("x"), ti=ti).endswith(
        "repeat: env VITRINA_START_DATE=2024-01-01 VITRINA_END_DATE=2025-01-01"
        " dbt build --target postgres --select tag:telemetry"
    )


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"start_date": "2024-12-01"}, "the Params start_date and end_date go together"),
        ({"start_date": "2024-12-02", "end_date": "2024-12-01"}, "holds no day"),
    ],
)
@pytest.mark.parametrize("task_id", ["land.telemetry", "plan", "models.dbt_producer_watcher"])
def test_a_failure_is_told_whatever_the_params(
    dag: DAG, task_id: str, params: dict[str, Any], said: str
) -> None:
    """A callback that raises is a failure that nobody hears of."""
    given = context("manual", logical=INTERVAL_START, **params)
    line = failing(dag, task_id, ValueError("x"), ti=FakeTi(dag, task_id, plan=None), **given)
    assert "failed for days that can't be told" in line
    assert said in line
    assert "repeat: start the run anew with other Params" in line


def test_a_failure_without_days_names_no_command_that_builds_all_of_them(dag: DAG) -> None:
    nothing = context("asset_triggered")
    for task_id in ("models.dbt_producer_watcher", "mark"):
        ti = FakeTi(dag, task_id, plan=None)
        line = failing(dag, task_id, ValueError("x"), ti=ti, **nothing)
        assert "repeat: clear it in Airflow" in line
        assert "dbt build" not in line


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


PLAN_9 = {"days": ["2024-12-05", "2024-12-08"], "build_id": 9}
PRODUCER = "models.dbt_producer_watcher"


def test_dbt_is_given_the_plan_s_days_and_the_warehouse_and_no_other_secret(
    dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cosmos keeps what dbt is given among the rendered fields, which people see."""
    from vitrina_dags import models

    known = {"POSTGRES_HOST": "dwh", "PGSSLMODE": "require", "TELEMETRY_DB_URL": "a", "CRM_X": "b"}
    monkeypatch.setattr(models, "settings_of_airflow", lambda: known)
    ti = FakeTi(dag, PRODUCER, PLAN_9)
    operator = SimpleNamespace(env={"KEPT": "1"})
    models.give_days({"ti": ti}, operator)
    assert operator.env == {
        "KEPT": "1",
        "POSTGRES_HOST": "dwh",
        "PGSSLMODE": "require",
        "VITRINA_DAYS": "2024-12-05,2024-12-08",
        "DBT_LOG_LEVEL_FILE": "none",
    }
    assert ti.pushed == {"build_id": 9}


def test_dbt_is_never_started_without_days(dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitrina_dags import models

    monkeypatch.setattr(models, "settings_of_airflow", dict)
    ti = FakeTi(dag, PRODUCER, {"days": [], "build_id": None})
    with pytest.raises(ValueError, match="no days"):
        models.give_days({"ti": ti}, SimpleNamespace(env=None))


def test_mark_asks_which_plan_the_models_were_built_by(dag: DAG, dbt_folder: Path) -> None:
    """A plan that was cleared alone has days that no model was run for."""
    from airflow.sdk.exceptions import AirflowFailException

    def refused(dag: DAG, built: dict[str, int]) -> str | None:
        mark = task_of(dag, "mark")
        try:
            mark.check(FakeTi(dag, "mark", PLAN_9, built), 9)
        except AirflowFailException as error:
            return str(error)
        return None

    watchers = [
        task.task_id
        for task in dag.tasks
        if task.task_id.startswith("models.") and task.task_id not in (PRODUCER, f"{PRODUCER}_done")
    ]
    assert refused(dag, {PRODUCER: 9}) is None
    # The producer was of another plan: the models ran by themselves since, all or not all of them.
    assert refused(dag, {PRODUCER: 8, **dict.fromkeys(watchers, 9)}) is None
    assert refused(dag, dict.fromkeys(watchers, 9)) is None
    assert "not built by this run's plan 9" in str(refused(dag, {PRODUCER: 8}))
    some = str(refused(dag, {PRODUCER: 8, **dict.fromkeys(watchers[1:], 9)}))
    assert f"not built by this run's plan 9: {watchers[0]}; clear the group models" in some

    local = parse(dbt_folder, VITRINA_DBT_EXECUTION="local").dags["crm_telemetry_mart"]
    tasks = [task.task_id for task in local.tasks if task.task_id.startswith("models.")]
    assert refused(local, dict.fromkeys(tasks, 9)) is None
    assert tasks[0] in str(refused(local, dict.fromkeys(tasks[1:], 9)))


def test_airflow_s_settings_reach_ingestion_while_it_runs(
    dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitrina_dags import ingestion_tasks

    seen: list[str | None] = []

    def run(_: object) -> tuple[int, str, str]:
        seen.append(os.environ.get("CRM_API_URL"))
        return 0, "{}", ""

    monkeypatch.setenv("CRM_API_URL", "http://environment")
    monkeypatch.setattr(
        ingestion_tasks, "settings_of_airflow", lambda: {"CRM_API_URL": "http://variable"}
    )
    monkeypatch.setattr(ingestion_tasks, "run_ingestion", run)
    task_of(dag, "land.crm").execute(context("scheduled", start=INTERVAL_START))
    assert seen == ["http://variable"]
    assert os.environ["CRM_API_URL"] == "http://environment"


def test_a_plan_with_nothing_to_build_skips_what_follows(
    dag: DAG, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import TriggerRule
    from airflow.sdk.exceptions import AirflowSkipException

    from vitrina_dags import ingestion_tasks

    plan = task_of(dag, "plan")
    assert plan.trigger_rule == TriggerRule.NONE_FAILED  # a landing may have had no day to land
    monkeypatch.setattr(ingestion_tasks, "settings_of_airflow", dict)
    monkeypatch.setattr(ingestion_tasks, "run_ingestion", lambda _: (0, '{"days": []}', ""))
    with pytest.raises(AirflowSkipException):
        plan.execute(context("asset_triggered"))


def test_the_producer_s_second_try_comes_at_once(dag: DAG) -> None:
    """It steps aside for the watchers, which come later: after theirs it would come too late."""
    producer = task_of(dag, PRODUCER)
    assert (producer.retries, producer.retry_delay) == (1, timedelta(0))


def test_watchers_hold_their_place(dag: DAG) -> None:
    """One that defers and is back within a second is taken for lost, and a test has no second try."""
    watchers = [task for task in dag.tasks if "Watcher" in type(task).__name__]
    assert {task.deferrable for task in watchers if hasattr(task, "deferrable")} == {False}


def test_no_run_goes_on_for_ever(dag_bag: DagBag) -> None:
    """One for a day to come never begins, and with one run at a time all others wait behind it."""
    for found in dag_bag.dags.values():
        assert found.dagrun_timeout == timedelta(hours=20)


def test_a_zone_that_there_is_not_is_refused(dbt_folder: Path) -> None:
    errors = parse(dbt_folder, BUSINESS_TIMEZONE="Mars/Olympus").import_errors
    assert "no zone is named 'Mars/Olympus'" in "".join(errors.values())


def test_a_quoted_password_is_masked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a url it is another text than the one that Airflow knows."""
    from airflow.sdk import Connection

    from vitrina_dags import connections

    masked: list[str] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", masked.append)
    telemetry = Connection(
        conn_id="t",
        conn_type="postgres",
        host="h",
        login="u",
        password="p/w@1#",  # noqa: S106
    )
    assert "p%2Fw%401%23" in connections._telemetry(telemetry)["TELEMETRY_DB_URL"]
    assert masked == ["p%2Fw%401%23"]


def test_tls_options_of_the_warehouse_are_kept() -> None:
    from airflow.sdk import Connection

    from vitrina_dags.connections import _postgres

    found = _postgres(
        Connection(conn_id="o", conn_type="postgres", host="h", extra='{"sslmode": "verify-full"}')
    )
    assert found["PGSSLMODE"] == "verify-full"
