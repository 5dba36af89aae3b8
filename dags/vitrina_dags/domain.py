"""What the DAGs of domains have in common: timetable, window, retries, Params, failure callback.

A DAG is a function that `nightly` or `by_hand` decorates; its docstring is what people see above the
graph. In it, `land` makes the tasks of the sources, and `build` those that follow: plan, the models,
mark.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import (
    DAG,
    Asset,
    BaseOperator,
    CronDataIntervalTimetable,
    TaskGroup,
    TriggerRule,
    dag,
)

from vitrina_dags import failures, settings
from vitrina_dags.builds import builders_of
from vitrina_dags.days import window_params
from vitrina_dags.ingestion_tasks import (
    PLAN,
    LandOperator,
    MarkOperator,
    PlanOperator,
    UsableOperator,
)
from vitrina_dags.models import models_of

# Before any data: a backfill may ask for any day, and there is no catch-up.
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
LONGEST_RUN = timedelta(hours=20)


def nightly(
    dag_id: str, *, at: str, catch_up_from: date | None = None, **kwargs: Any
) -> Callable[[Callable[[], None]], DAG]:
    """Make a DAG of a function: daily at a cron expression's business time, one run at a time.

    `catch_up_from` is the first business day that has a run, whenever the DAG is switched on.
    """
    zone = settings.business_timezone()
    start = BEGINNING
    if catch_up_from is not None:
        start = datetime.combine(catch_up_from, time.min, ZoneInfo(zone))
    return _dag(
        dag_id,
        schedule=CronDataIntervalTimetable(at, timezone=zone),
        start_date=start,
        catchup=catch_up_from is not None,
        params=window_params(),
        **kwargs,
    )


def by_hand(dag_id: str, **kwargs: Any) -> Callable[[Callable[[], None]], DAG]:
    """Make a DAG of a function: started by a person, who gives a range of days."""
    return _dag(
        dag_id,
        schedule=None,
        start_date=BEGINNING,
        params=window_params(needed=True),
        **kwargs,
    )


def _dag(dag_id: str, **kwargs: Any) -> Callable[[Callable[[], None]], DAG]:
    def make(function: Callable[[], None]) -> DAG:
        made: DAG = dag(
            dag_id,
            max_active_runs=1,
            # A run that nothing can end, as one for a day to come, would hold up all others.
            dagrun_timeout=LONGEST_RUN,
            default_args=default_args(),
            doc_md=inspect.getdoc(function),
            description=(inspect.getdoc(function) or "").split("\n", 1)[0],
            **kwargs,
        )(function)()
        return made

    return make


def default_args() -> dict[str, Any]:
    """What every task has: tries with growing pauses between them, and the failure callback."""
    return {
        "owner": "vitrina",
        "retries": settings.retries(),
        "retry_delay": settings.retry_delay(),
        "retry_exponential_backoff": 2,
        "max_retry_delay": settings.LONGEST_RETRY_DELAY,
        "on_failure_callback": failures.tell,
    }


def land(
    source: str, *, task_id: str | None = None, by_window: bool = True, **kwargs: Any
) -> LandOperator:
    """The task that lands a source: the run's days, or by the source's own cursor."""
    how = "the run's days" if by_window else "all that is new, by its own cursor"
    options = " ".join(each for each in kwargs.get("options", ()) if isinstance(each, str))
    return LandOperator(
        task_id=task_id or source,
        source=source,
        by_window=by_window,
        doc_md=f"`python -m ingestion {f'{source} {options}'.strip()}`: {how}.",
        **kwargs,
    )


def usable(after: LandOperator, *, task_id: str) -> None:
    """The task that is red as long as a landing meets what can't be used."""
    after >> UsableOperator(
        task_id=task_id,
        landing=after.task_id,
        doc_md=f"Red when `{after.task_id}` met a delivery that can't be used; the rest is built.",
    )


def build(
    domain: str, *, marts: Sequence[str], after: Collection[BaseOperator | TaskGroup]
) -> None:
    """Plan, the models, mark. The marts' assets are updated once all of it is built and tested."""
    plan = PlanOperator(
        task_id=PLAN,
        domain=domain,
        # A landing that had no day to land is no reason not to build what is pending.
        trigger_rule=TriggerRule.NONE_FAILED,
        doc_md=f"`python -m ingestion plan {domain}`: the run's days and the pending ones.",
    )
    models = models_of(domain)
    mark = MarkOperator(
        task_id="mark",
        domain=domain,
        check=builders_of(models).refuse_other_builds,
        outlets=[mart_asset(mart) for mart in marts],
        doc_md=f"`python -m ingestion mark {domain}`: the plan's days are built and tested.",
    )
    list(after) >> plan >> models >> mark


def mart_asset(mart: str) -> Asset:
    """The asset of a mart, whatever its engine."""
    return Asset(name=mart, uri=f"vitrina://marts/{mart}", group="marts")
