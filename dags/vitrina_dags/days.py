"""Which days a run is about. The one place where a run's dates become business days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from airflow.sdk import Param

from vitrina_dags.settings import business_timezone, import_ingestion

if TYPE_CHECKING:
    from ingestion.days import Window

# The run's own day lies in its interval; people and other DAGs name theirs by the logical date.
BY_INTERVAL = ("scheduled", "backfill")
BY_LOGICAL_DATE = ("manual", "operator_triggered")


def window_params(*, needed: bool = False) -> dict[str, Param]:
    """The Params by which a person asks for a range of days; a run without it may be refused."""
    kind: dict[str, Any] = {"type": "string", "format": "date"}
    if not needed:
        kind |= {"type": ["null", "string"], "default": None}
    start = "Business day." if needed else "Business day; wins over the run's own."
    return {
        "start_date": Param(title="First day", description=start, **kind),
        "end_date": Param(
            title="Day after the last one",
            description="Exclusive: D and D+1 are D.",
            **kind,
        ),
    }


def window_of_run(context: Mapping[str, Any]) -> Window | None:
    """The days that a run lands and builds besides the pending ones; None: only those.

    The Params win. A scheduled or backfilled run means the business day on which its interval
    begins (the 02:00 run of the 9th builds the 8th), a manual one the day of its logical date, and
    one that an asset started has no day of its own. The clock is never asked.

    Raises UsageError when the Params make no window.
    """
    import_ingestion()
    from ingestion.days import Window
    from ingestion.errors import UsageError

    params: Mapping[str, Any] = context.get("params") or {}
    start, end = params.get("start_date"), params.get("end_date")
    if start and end:
        return Window(date.fromisoformat(start), date.fromisoformat(end))
    if start or end:
        raise UsageError("the Params start_date and end_date go together; the end is exclusive")
    run = context["dag_run"]
    run_type = run_type_of(run)
    if run_type in BY_INTERVAL:
        return Window.of_day(_business_day(run.data_interval_start))
    if run_type in BY_LOGICAL_DATE and run.logical_date is not None:
        return Window.of_day(_day_meant(run.logical_date))
    return None


def run_type_of(run: Any) -> str:
    """What started a run: `scheduled`, `backfill`, `manual`, …"""
    return str(getattr(run.run_type, "value", run.run_type))


def window_arguments(window: Window | None) -> list[str]:
    """The same for a command of ingestion."""
    if window is None:
        return []
    return ["--start-date", window.start.isoformat(), "--end-date", window.end.isoformat()]


def _business_day(instant: datetime) -> date:
    return instant.astimezone(ZoneInfo(business_timezone())).date()


def _day_meant(logical_date: datetime) -> date:
    """The day of a logical date that a person gave: midnight UTC is how Airflow reads a mere date."""
    utc = logical_date.astimezone(UTC)
    return utc.date() if utc.time() == time() else _business_day(logical_date)
