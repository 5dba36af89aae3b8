"""Tasks that are commands of ingestion: land a source, plan a build, mark it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from vitrina_dags.connections import environment, settings_of_airflow
from vitrina_dags.days import window_arguments, window_of_run
from vitrina_dags.settings import import_ingestion

if TYPE_CHECKING:
    from airflow.sdk import Context

PLAN = "plan"
WRONG_USE, NOT_YET = 2, 3  # exit statuses of `python -m ingestion`
LOOK_AGAIN = timedelta(minutes=10)
PATIENCE = timedelta(hours=8)


def run_ingestion(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run `python -m ingestion …` in this process; returns exit status, output, and the last error."""
    import_ingestion()
    from ingestion.cli import main

    errors: list[str] = []
    listener = logging.Handler(logging.ERROR)
    listener.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    output = StringIO()
    logger = logging.getLogger("ingestion")
    logger.addHandler(listener)
    try:
        with redirect_stdout(output):
            status = main(arguments)
    except SystemExit as left:  # argparse
        status = left.code if isinstance(left.code, int) else WRONG_USE
    finally:
        logger.removeHandler(listener)
    return status, output.getvalue(), errors[-1] if errors else ""


class IngestionOperator(BaseOperator):
    """`python -m ingestion …`. Its last line of output, decoded, is the XCom."""

    ui_color = "#e8f2ff"

    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """The command, for this run. Raises UsageError when the Params make no window."""
        raise NotImplementedError

    def repeating_command(self, context: Mapping[str, Any]) -> list[str]:
        """What a person types to do the same."""
        return ["python", "-m", "ingestion", *self.arguments(context)]

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the command. A wrong use is not tried again, what is not there yet is waited for."""
        from airflow.sdk.exceptions import AirflowException, AirflowFailException

        import_ingestion()
        from ingestion.errors import UsageError

        try:
            arguments = self.arguments(context)
        except UsageError as error:
            raise AirflowFailException(str(error)) from None
        self.log.info("python -m ingestion %s", " ".join(arguments))
        with environment(settings_of_airflow()):
            status, output, reason = run_ingestion(arguments)
        if status == 0:
            answer: dict[str, Any] = json.loads(output.splitlines()[-1])
            self.log.info("%s", answer)
            return answer
        message = reason or f"exit status {status}"
        if status == WRONG_USE:
            raise AirflowFailException(message)
        if status == NOT_YET:
            _wait_for_it(context, message)
        raise AirflowException(message)


def _wait_for_it(context: Mapping[str, Any], message: str) -> None:
    """Look again later, without using up a try; give up when the run has waited long enough."""
    from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

    now = datetime.now(UTC)
    if now - context["dag_run"].start_date > PATIENCE:
        raise AirflowFailException(f"{message}; waited for {PATIENCE}")
    raise AirflowRescheduleException(now + LOOK_AGAIN)  # type: ignore[no-untyped-call]


class LandOperator(IngestionOperator):
    """`python -m ingestion SOURCE`, for the run's days or, if `by_window` is false, by its cursor."""

    def __init__(self, *, source: str, by_window: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.by_window = by_window

    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """`SOURCE` with the run's days."""
        if not self.by_window:
            return [self.source]
        return [self.source, *window_arguments(window_of_run(context))]

    def execute(self, context: Context) -> dict[str, Any]:
        """Land; skip when the run has no day of its own, as one that an asset started."""
        from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

        import_ingestion()
        from ingestion.errors import UsageError

        try:
            window = window_of_run(context)
        except UsageError as error:
            raise AirflowFailException(str(error)) from None
        if self.by_window and window is None:
            raise AirflowSkipException("this run has no day of its own: nothing to land")
        return super().execute(context)


class PlanOperator(IngestionOperator):
    """`python -m ingestion plan DOMAIN`: the run's days and what is pending, and the build's id."""

    def __init__(self, *, domain: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.domain = domain

    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """`plan DOMAIN` with the run's days."""
        return ["plan", self.domain, *window_arguments(window_of_run(context))]

    def execute(self, context: Context) -> dict[str, Any]:
        """Plan; skip what follows when there is nothing to build."""
        from airflow.sdk.exceptions import AirflowSkipException

        plan = super().execute(context)
        if not plan["days"]:
            raise AirflowSkipException("no day is pending: nothing to build")
        return plan


class MarkOperator(IngestionOperator):
    """`python -m ingestion mark DOMAIN --build ID`: what this run planned is built."""

    def __init__(self, *, domain: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.domain = domain

    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """`mark DOMAIN` with the build of this run's plan."""
        return ["mark", self.domain, "--build", str(planned(context)["build_id"])]


def planned(context: Mapping[str, Any]) -> dict[str, Any]:
    """What this run's plan printed. Raises LookupError when there is none."""
    plan = context["ti"].xcom_pull(task_ids=PLAN)
    if not plan:
        raise LookupError(f"the task {PLAN} of this run has left nothing: clear it first")
    answer: dict[str, Any] = plan
    return answer
