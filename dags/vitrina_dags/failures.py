"""One line for a task that failed: what, which days, why, and the command that repeats it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from vitrina_dags.days import window_of_run
from vitrina_dags.models import repeating_dbt
from vitrina_dags.settings import import_ingestion

log = logging.getLogger("vitrina.failures")

LONGEST_REASON = 300


def tell(context: Mapping[str, Any]) -> None:
    """The failure callback of every task. What else should hear of a failure is called here."""
    log.error(failure_line(context))


def failure_line(context: Mapping[str, Any]) -> str:
    """`dag.task failed for [D, E): why; repeat: command`."""
    ti = context["ti"]
    reason = " ".join(str(context.get("exception") or "no reason given").split())
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]}…"
    return (
        f"{ti.dag_id}.{ti.task_id} failed for {_days(context)}: {reason};"
        f" repeat: {_repeat(context)}"
    )


def _days(context: Mapping[str, Any]) -> str:
    import_ingestion()
    from ingestion.errors import UsageError

    try:
        window = window_of_run(context)
    except (UsageError, ValueError) as error:  # the Params
        return f"days that can't be told ({error})"
    return "the pending days" if window is None else str(window)


def _repeat(context: Mapping[str, Any]) -> str:
    """What a person types to do again what the task did; where nothing can be typed, what to do."""
    import_ingestion()
    from ingestion.errors import UsageError

    task = context["ti"].task
    command: Callable[[Mapping[str, Any]], list[str]] = getattr(
        task, "repeating_command", None
    ) or repeating_dbt(task)
    try:
        return shlex.join(command(context))
    except (UsageError, ValueError) as error:
        return f"start the run anew with other Params ({error})"
    except LookupError as error:
        return f"clear it in Airflow ({error})"
