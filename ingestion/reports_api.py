"""The report API of the order source: which files there are (SPEC.md section 2).

Nothing here waits but `wait_for_report`: `request_report` and `look_at_report` let an orchestrator
do the waiting.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from ingestion.errors import DeliveryError, SourceError
from ingestion.settings import HttpSettings, Settings, read_settings

log = logging.getLogger(__name__)

NAME = "the report API"
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class ReportsSettings(Settings):
    """`REPORTS_API_URL`, `REPORTS_API_KEY`, `REPORTS_NICKNAME`, `REPORTS_COHORT`; how a report is
    waited for: `REPORTS_POLL_SECONDS` doubling each time up to `REPORTS_POLL_MAX_SECONDS`, for
    `REPORTS_DEADLINE_SECONDS` at most."""

    model_config = SettingsConfigDict(env_prefix="REPORTS_")

    api_url: HttpUrl
    api_key: SecretStr
    nickname: str
    cohort: str
    poll_seconds: float = Field(default=2.0, gt=0)
    poll_max_seconds: float = Field(default=60.0, gt=0)
    deadline_seconds: float = Field(default=3600.0, ge=0)


@dataclass(frozen=True)
class Report:
    """A report that is ready: its days, both inclusive, and the urls of its files by their names."""

    report_id: str
    start: date
    end: date
    urls: Mapping[str, str]


@dataclass(frozen=True)
class Increment:
    """The increment of a day, and the urls of its files by their names."""

    increment_id: str
    day: date
    urls: Mapping[str, str]


class ReportsApi:
    """The three calls."""

    def __init__(self, settings: ReportsSettings, http: HttpSettings) -> None:
        self._settings = settings
        self._url = str(settings.api_url).rstrip("/")
        headers = {
            "X-Nickname": SecretStr(settings.nickname),
            "X-Cohort": SecretStr(settings.cohort),
            "X-API-KEY": settings.api_key,
            "X-Project": SecretStr("True"),
        }
        # Here, as every command imports this module: the HTTP stack is 8 MB and a tenth of a start.
        from ingestion.http import HeadersAuth, JsonApi

        self._api = JsonApi(NAME, self._url, HeadersAuth(headers), http)

    def request_report(self) -> str:
        """Have a report made; returns the id of the task that makes it."""
        answer = self._ask("generate_report", {}, method="POST")
        return _text(answer, "task_id")

    def look_at_report(self, task_id: str) -> Report | None:
        """The report of a task, None while it is being made.

        Raises DeliveryError when the task ended in another way, SourceError when that can't be told.
        """
        answer = self._ask("get_report", {"task_id": task_id})
        status = _text(answer, "status")
        if status == "RUNNING":
            return None
        if status != "SUCCESS":
            raise DeliveryError(f"{NAME}: the task {task_id} ended as {status!r}")
        data = _object(answer, "data")
        return Report(
            report_id=_text(data, "report_id"),
            start=_day(data, "start_day"),
            end=_day(data, "end_date"),
            urls=_urls(data),
        )

    def wait_for_report(self, task_id: str) -> Report:
        """Look at a task with growing pauses until it is done.

        Raises SourceError at the deadline.
        """
        deadline = time.monotonic() + self._settings.deadline_seconds
        pause = self._settings.poll_seconds
        while True:
            report = self.look_at_report(task_id)
            if report is not None:
                return report
            if time.monotonic() + pause > deadline:
                raise SourceError(
                    f"{NAME}: the task {task_id} still runs after"
                    f" {self._settings.deadline_seconds:g} s; when it is ready, land it:"
                    f" python -m ingestion orders --mode report --task-id {task_id}"
                )
            log.info("orders: the report is being made, next look in %g s", pause)
            time.sleep(pause)
            pause = min(pause * 2, self._settings.poll_max_seconds)

    def increment(self, report_id: str, day: date) -> Increment | None:
        """The increment of a day, None if there is none yet.

        Raises DeliveryError for one that is none, SourceError when it can't be asked for.
        """
        params = {"report_id": report_id, "date": f"{day.isoformat()}T00:00:00"}
        answer = self._ask("get_increment", params)
        status = _text(answer, "status")
        if status == "NOT FOUND":
            return None
        if status != "SUCCESS":
            raise DeliveryError(f"{NAME}: the increment of {day} is {status!r}")
        if str(answer.get("date", day))[:10] != day.isoformat():
            raise DeliveryError(f"{NAME}: asked for {day}, it gives {answer['date']!r}")
        data = _object(answer, "data")
        return Increment(_text(data, "increment_id"), day, _urls(data))

    def _ask(
        self, call: str, params: Mapping[str, str], *, method: str = "GET"
    ) -> Mapping[str, object]:
        content = self._api.get(f"{self._url}/{call}", params, method=method).content
        if not isinstance(content, dict):
            raise SourceError(f"{NAME} answers {call} with no object")
        return content


def reports_api() -> ReportsApi:
    """The API that the settings name."""
    return ReportsApi(read_settings(ReportsSettings), read_settings(HttpSettings))


def request_report() -> str:
    """Have a report made; returns the id of its task, for `look_at_report`."""
    return reports_api().request_report()


def look_at_report(task_id: str) -> Report | None:
    """The report of a task if it is ready. Raises SourceError as ReportsApi.look_at_report does."""
    return reports_api().look_at_report(task_id)


def _text(answer: Mapping[str, object], name: str) -> str:
    value = answer.get(name)
    # Half a character is a text to JSON, and to nobody who gets it from us.
    if not isinstance(value, str) or not value or HALF_CHARACTER.search(value):
        raise DeliveryError(f"{NAME}: no text {name!r} in its answer; it has {sorted(answer)}")
    return value


def _object(answer: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise DeliveryError(f"{NAME}: no object {name!r} in its answer; it has {sorted(answer)}")
    return value


def _day(data: Mapping[str, object], name: str) -> date:
    text = _text(data, name)
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise DeliveryError(f"{NAME}: {name} is no day: {text!r}") from None


def _urls(data: Mapping[str, object]) -> dict[str, str]:
    paths = _object(data, "s3_path")
    return {name: _text(paths, name) for name in paths}
