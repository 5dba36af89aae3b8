"""The models of a domain as a group of tasks: Cosmos, from a manifest that was made ahead of time.

The window comes by the environment (`VITRINA_DAYS`), at run time: no `--vars`, which would make dbt
parse everything again. See docs/decisions/0007-airflow.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from vitrina_dags import settings
from vitrina_dags.builds import say_which_build
from vitrina_dags.connections import settings_of_airflow
from vitrina_dags.days import window_of_run
from vitrina_dags.ingestion_tasks import planned

if TYPE_CHECKING:
    from cosmos import DbtTaskGroup

GROUP = "models"
POLL_SECONDS = 1
GOOD = ("pass", "success", "warn")
OF_WAREHOUSES = ("POSTGRES_", "PGSSL", "CLICKHOUSE_", "VERTICA_")
UNFINISHED = ("started", "compiling", "executing")


def models_of(domain: str) -> DbtTaskGroup:
    """The models tagged with the domain, and their tests; a test is not tried again."""
    from cosmos import (
        DbtTaskGroup,
        ExecutionConfig,
        ExecutionMode,
        ProfileConfig,
        ProjectConfig,
        RenderConfig,
    )
    from cosmos.constants import InvocationMode, LoadMode, TestBehavior

    folder = settings.dbt_dir()
    watched = settings.dbt_execution() == "watcher"
    shared = settings.own_dbt() is None
    group = DbtTaskGroup(
        group_id=GROUP,
        tooltip=f"dbt build --select tag:{domain}",
        project_config=ProjectConfig(
            dbt_project_path=folder,
            manifest_path=settings.manifest(),
            models_relative_path="dbt_project/models",
            seeds_relative_path="seeds",
            snapshots_relative_path="dbt_project/snapshots",
            project_name="vitrina",
            install_dbt_deps=False,
        ),
        profile_config=ProfileConfig(
            profile_name="vitrina",
            target_name=settings.target_of(domain),
            profiles_yml_filepath=folder / "profiles.yml",
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER if watched else ExecutionMode.LOCAL,
            invocation_mode=InvocationMode.DBT_RUNNER if shared else InvocationMode.SUBPROCESS,
            dbt_executable_path=settings.dbt_executable(),
            setup_operator_args=PRODUCER if watched else None,
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            select=[f"tag:{domain}"],
            test_behavior=TestBehavior.AFTER_EACH if watched else TestBehavior.BUILD,
            should_detach_multiple_parents_tests=True,
            # Without it a model that has no test, and a test that has no model, show Cosmos' suffixes.
            normalize_task_display_name=lambda node: node.name,
            emit_datasets=False,  # the task `mark` says that the marts are there, on every engine
        ),
        operator_args={
            "append_env": True,
            "interceptors": [give_days],
            # A watcher that defers and is called back within a second is taken for lost by a
            # scheduler that has not seen it go yet: a test, which has no second try, would be red.
            **({"poke_interval": POLL_SECONDS, "deferrable": False} if watched else {}),
        },
    )
    _settle_tests(group)
    return group


def _settle_tests(group: DbtTaskGroup) -> None:
    """No test is tried again; one of several models has a result of its own, and is none of theirs.

    Cosmos' producer would count it for each of its models: a model would wait for it, and fail with
    it when it was skipped because another one failed.
    """
    tasks = list(group.iter_tasks())
    tests = [task for task in tasks if type(task).__name__.startswith("DbtTest")]
    for test in tests:
        test.retries = 0
    ids = {str(getattr(test, "model_unique_id", "")) for test in tests}
    apart = {test for test in ids if test.startswith("test.")}
    for task in tasks:
        by_model: dict[str, list[str]] | None = getattr(task, "tests_per_model", None)
        if by_model is not None:
            task.tests_per_model = {test: [test] for test in apart} | {
                model: [test for test in those if test not in apart]
                for model, those in by_model.items()
            }


# What builds all models in one invocation never builds again: tried again, it steps aside, and each
# watcher whose model failed builds that model itself. So its second try comes at once.
PRODUCER: dict[str, Any] = {
    "retries": 1,
    "retry_delay": timedelta(0),
    "retry_exponential_backoff": 0,
    "task_display_name": "dbt build",
    "doc_md": "Builds and tests all models in one invocation, once. Cleared, it steps aside and the"
    " models' tasks run their own parts: **clear those, not this one.**",
}


def give_days(context: Mapping[str, Any], operator: Any) -> None:
    """Cosmos' interceptor: the plan's days and the warehouse's Connection, just before dbt starts.

    Of the settings only those that dbt reads: Cosmos keeps `env` among the rendered fields, where a
    password that is part of a url would not be masked.
    """
    plan = planned(context)
    days = ",".join(plan["days"])
    if not days:  # dbt would take it for every landed day
        raise ValueError("the plan has no days")
    warehouse = {k: v for k, v in settings_of_airflow().items() if k.startswith(OF_WAREHOUSES)}
    operator.env = {
        **(operator.env or {}),
        **warehouse,
        "VITRINA_DAYS": days,
        "DBT_LOG_LEVEL_FILE": "none",  # the folder goes with the task, and Airflow has the log
    }
    say_which_build(context["ti"], plan["build_id"])
    _push_less(context["ti"], operator)


def _push_less(ti: Any, operator: Any) -> None:
    """Spare the producer most of its XComs, each a request that dbt waits for.

    Cosmos pushes each state of each model and test, some of them again and again; a watcher reads
    the last one of its model and the result of all its tests. Tests that were skipped, as their
    model failed, have no result: their watcher runs them once the model is mended.
    """
    push = ti.xcom_push
    pushed: dict[str, Any] = {}
    results: dict[str, dict[str, str]] = getattr(operator, "test_results_per_model", {})

    def never_run(key: str) -> bool:
        model = key.removesuffix("_tests_status")
        found = (each for name, each in results.items() if name.replace(".", "__") == model)
        bad = {state for states in found for state in states.values() if state not in GOOD}
        return bool(bad) and bad <= {"skipped", "failed"}  # of a test that ran: fail, error

    def is_read(key: str, value: Any) -> bool:
        if key.endswith("_tests_status"):
            return not never_run(key)
        if key.startswith(("test__", "unit_test__")):
            return False
        return not key.endswith("_dbt_event") or value["status"] not in UNFINISHED

    def xcom_push(key: str, value: Any, **kwargs: Any) -> None:
        if is_read(key, value) and (key not in pushed or pushed[key] != value):
            pushed[key] = value
            push(key=key, value=value, **kwargs)

    class Backup(dict[str, Any]):
        """What Cosmos pushes again when the producer steps aside, its XComs having been cleared."""

        def __setitem__(self, key: str, value: Any) -> None:
            if is_read(key, value):
                super().__setitem__(key, value)

    # The task instance is a model of pydantic's, which refuses setattr.
    object.__setattr__(ti, "xcom_push", xcom_push)
    if hasattr(ti, "_cosmos_xcom_backup_buffer"):
        object.__setattr__(ti, "_cosmos_xcom_backup_buffer", Backup(ti._cosmos_xcom_backup_buffer))


def repeating_dbt(task: Any) -> Any:
    """What a person types to do again what a task of dbt's did, as a function of the context."""

    def command(context: Mapping[str, Any]) -> list[str]:
        try:
            days = [date.fromisoformat(day) for day in planned(context)["days"]]
        except LookupError:
            days = list(window_of_run(context) or ())
        target = task.profile_config.target_name
        dbt = ["dbt", "build", "--target", target, "--select", task.select]
        return ["env", *_as_settings(days), *dbt]

    return command


def _as_settings(days: Sequence[date]) -> list[str]:
    """The days as dbt reads them from the environment. Raises LookupError when there are none."""
    if not days:  # dbt would build every landed day
        raise LookupError("it has no days")
    first, end = days[0], days[-1] + timedelta(days=1)
    if len(days) > 1 and (end - first).days == len(days):
        return [f"VITRINA_START_DATE={first}", f"VITRINA_END_DATE={end}"]
    return [f"VITRINA_DAYS={','.join(map(str, days))}"]
