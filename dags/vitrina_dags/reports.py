"""Orders' report: have it made, and wait for it without holding a worker.

The triggerer looks at it with growing pauses (SPEC.md section 2: RUNNING until SUCCESS, any other
status fails at once). The settings are read there too, so no key is stored with the trigger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from vitrina_dags.connections import settings_of_airflow
from vitrina_dags.settings import import_ingestion

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ingestion.reports_api import ReportsApi, ReportsSettings

REQUEST = "request"
REPEAT = ["python", "-m", "ingestion", "orders", "--mode", "report"]


def settings_of_reports() -> ReportsSettings:
    """What Airflow's Connection says, and the environment for what it does not."""
    import_ingestion()
    from ingestion.reports_api import ReportsSettings
    from ingestion.settings import read_settings

    # Not by os.environ, which the triggers of a triggerer share.
    given = {n: v for n, v in settings_of_airflow().items() if n.startswith("REPORTS_") and v}
    return read_settings(ReportsSettings, given)


def api(settings: ReportsSettings) -> ReportsApi:
    """The report API."""
    from ingestion.reports_api import ReportsApi
    from ingestion.settings import HttpSettings, read_settings

    return ReportsApi(settings, read_settings(HttpSettings))


class RequestReportOperator(BaseOperator):
    """Have a report made; the id of its task is the XCom."""

    ui_color = "#e8f2ff"

    def execute(self, context: Context) -> str:
        """Ask for it."""
        del context
        return api(settings_of_reports()).request_report()

    def repeating_command(self, context: Mapping[str, Any]) -> list[str]:
        """What a person types to do the same, and to wait and land as well."""
        del context
        return REPEAT


class ReportReadySensor(BaseSensorOperator):
    """Wait in the triggerer until the report of this run's request is ready."""

    ui_color = "#e8f2ff"

    def execute(self, context: Context) -> None:
        """Hand over to the triggerer, up to the deadline of `REPORTS_DEADLINE_SECONDS`."""
        deadline = timedelta(seconds=settings_of_reports().deadline_seconds)
        self.defer(
            trigger=ReportTrigger(requested(context)),
            method_name="execute_complete",
            timeout=deadline,
        )

    def execute_complete(self, context: Context, event: Mapping[str, str]) -> None:
        """What the triggerer saw. What may pass, as an outage, is tried again as any failure is."""
        from airflow.sdk.exceptions import AirflowException, AirflowFailException

        del context
        if "failed" in event:
            raise AirflowFailException(event["failed"])
        if "error" in event:
            raise AirflowException(event["error"])
        self.log.info("the report %s is ready", event["report_id"])

    def repeating_command(self, context: Mapping[str, Any]) -> list[str]:
        """What a person types to wait and land."""
        return [*REPEAT, *of_the_report(context)[2:]]


class ReportTrigger(BaseTrigger):
    """Looks at a report until it is ready or has failed."""

    def __init__(self, task_id: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.report_task_id = task_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What the metadata database keeps."""
        return "vitrina_dags.reports.ReportTrigger", {"task_id": self.report_task_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: the report's id, or why there `failed` to be one, or what `error` hid it."""
        yield TriggerEvent(await self._outcome())  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, str]:
        import_ingestion()
        from ingestion.errors import DeliveryError, UsageError, VitrinaError

        try:
            # In threads: what reads settings and asks over HTTP would hold up every other trigger.
            settings = await asyncio.to_thread(settings_of_reports)
            pause = settings.poll_seconds
            while True:
                found = await asyncio.to_thread(api(settings).look_at_report, self.report_task_id)
                if found is not None:
                    return {"report_id": found.report_id}
                await asyncio.sleep(pause)
                pause = min(pause * 2, settings.poll_max_seconds)
        except (DeliveryError, UsageError) as error:
            return {"failed": str(error)}
        except VitrinaError as error:
            return {"error": str(error)}


def requested(context: Mapping[str, Any]) -> str:
    """The task id of this run's report. Raises LookupError when it was not requested."""
    task_id = context["ti"].xcom_pull(task_ids=REQUEST)
    if not task_id:
        raise LookupError(f"the task {REQUEST} of this run has left nothing: clear it first")
    return str(task_id)


def of_the_report(context: Mapping[str, Any]) -> list[str]:
    """Options of `python -m ingestion orders` that land this run's report."""
    return ["--mode", "report", "--task-id", requested(context)]
