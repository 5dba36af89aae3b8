"""One line for a task that failed: what, which days, why, and the command that repeats it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from typing import Any

from vitrina_dags.days import window_of_run
from vitrina_dags.models import repeating_dbt

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
        f" repeat: {shlex.join(_command(context))}"
    )


def _days(context: Mapping[str, Any]) -> str:
    try:
        window = window_of_run(context)
    except (ValueError, KeyError, AttributeError) as error:  # the Params, most of all
        return f"days that can't be told ({error})"
    return "the pending days" if window is None else str(window)


def _command(context: Mapping[str, Any]) -> list[str]:
    """What a person types to do again what the task did."""
    task = context["ti"].task
    repeat = getattr(task, "repeating_command", None) or repeating_dbt(task)
    command: list[str] = repeat(context)
    return command
