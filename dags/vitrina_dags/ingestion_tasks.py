"""Tasks that are commands of ingestion: land a source, plan a build, mark it."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator

from vitrina_dags.connections import environment, settings_of_airflow
from vitrina_dags.days import run_type_of, window_arguments, window_of_run
from vitrina_dags.settings import import_ingestion

if TYPE_CHECKING:
    from airflow.sdk import Context

PLAN = "plan"
WRONG_USE, NOT_YET = 2, 3  # exit statuses of `python -m ingestion`
LOOK_AGAIN = timedelta(minutes=10)
PATIENCE = timedelta(hours=8)
Option = str | Callable[[Mapping[str, Any]], list[str]]


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

    @abstractmethod
    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """The command, for this run. Raises UsageError when the Params make no window."""

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
            self.not_yet(context, message)
        raise AirflowException(message)

    def not_yet(self, context: Mapping[str, Any], message: str) -> NoReturn:
        """What to do when the source does not have it yet: try again, as after any failure."""
        from airflow.sdk.exceptions import AirflowException

        del context
        raise AirflowException(message)


class LandOperator(IngestionOperator):
    """`python -m ingestion SOURCE`, for the run's days or, if `by_window` is false, by its cursor.

    `options` are further arguments of the command; those that are functions are asked, when the task
    runs, for theirs. What is not there yet is looked for again until `patience` after the run was
    due; then the task fails or, if `may_be_missing`, is skipped with a warning: what comes later is
    found by a later run.
    """

    def __init__(
        self,
        *,
        source: str,
        by_window: bool = True,
        options: Sequence[Option] = (),
        may_be_missing: bool = False,
        patience: timedelta = PATIENCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.by_window = by_window
        self.options = options
        self.may_be_missing = may_be_missing
        self.patience = patience

    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """`SOURCE` with the options and the run's days."""
        options: list[str] = []
        for option in self.options:
            options += option(context) if callable(option) else [option]
        days = window_arguments(window_of_run(context)) if self.by_window else []
        return [self.source, *options, *days]

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

    def not_yet(self, context: Mapping[str, Any], message: str) -> NoReturn:
        """Look again later, without using up a try, for as long as patience lasts."""
        from airflow.sdk.exceptions import (
            AirflowFailException,
            AirflowRescheduleException,
            AirflowSkipException,
        )

        run = context["dag_run"]
        now = datetime.now(UTC)
        # A run that catches up is late already: its day is there, or is not to be waited for.
        due = run.data_interval_end if run_type_of(run) == "scheduled" else run.start_date
        if now - due <= self.patience:
            raise AirflowRescheduleException(now + LOOK_AGAIN)  # type: ignore[no-untyped-call]
        if self.may_be_missing:
            self.log.warning("%s; skipped: a later run lands it when it is there", message)
            raise AirflowSkipException(message)
        raise AirflowFailException(f"{message}; waited for {self.patience}")


class UsableOperator(BaseOperator):
    """Fails when a landing met deliveries that can't be used; nothing waits for it.

    The rest is landed and built all the same. A person has to have them delivered anew, and should
    hear of it until then.
    """

    ui_color = "#e8f2ff"

    def __init__(self, *, landing: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.landing = landing

    def execute(self, context: Context) -> None:
        """Look at what the landing says."""
        from airflow.sdk.exceptions import AirflowFailException

        answer = context["ti"].xcom_pull(task_ids=self.landing) or {}
        unusable: Mapping[str, str] = answer.get("unusable", {})
        if unusable:
            raise AirflowFailException(
                "; ".join(f"{day} can't be used: {why}" for day, why in unusable.items())
            )

    def repeating_command(self, context: Mapping[str, Any]) -> list[str]:
        """What a person types when it is delivered anew: the landing asks for it, as every one does."""
        landing = self.dag.get_task(self.landing)
        assert isinstance(landing, LandOperator)
        return landing.repeating_command(context)


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
    """`python -m ingestion mark DOMAIN --build ID`: what this run planned is built.

    `check(ti, build_id)` raises when the models were built by another plan.
    """

    def __init__(self, *, domain: str, check: Callable[[Any, int], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.domain = domain
        self.check = check

    def arguments(self, context: Mapping[str, Any]) -> list[str]:
        """`mark DOMAIN` with the build of this run's plan."""
        return ["mark", self.domain, "--build", str(planned(context)["build_id"])]

    def execute(self, context: Context) -> dict[str, Any]:
        """Mark what the models built, and nothing else."""
        self.check(context["ti"], planned(context)["build_id"])
        return super().execute(context)


def planned(context: Mapping[str, Any]) -> dict[str, Any]:
    """What this run's plan printed. Raises LookupError when there is none."""
    plan = context["ti"].xcom_pull(task_ids=PLAN)
    if not plan:
        raise LookupError(f"the task {PLAN} of this run has left nothing: clear it first")
    answer: dict[str, Any] = plan
    return answer
