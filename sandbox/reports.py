"""The report API of the order source, well behaved or not, over files in S3 (SPEC.md section 2).

It hands out what was delivered to it (`deliver`): a task of a report is RUNNING for a number of
looks, a day without an increment is NOT FOUND, wrong keys are refused, the rate is limited, and it
can be told to fail. How it names files and writes their urls depends on the cohort.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from werkzeug.datastructures import Headers, MultiDict

from sandbox.delivery import FILES, Delivery, Kind, is_id
from sandbox.misbehaviour import Body, Misbehaviour, json_bytes, spoiled
from sandbox.s3 import S3Server, UrlStyle
from sandbox.serving import Balking, refusal, serving

RUNNING, SUCCESS, NOT_FOUND, FAILED = "RUNNING", "SUCCESS", "NOT FOUND", "FAILED"
NICKNAME = "vitrina"
PROJECT_FOLDER = "project"


class Call(StrEnum):
    """The three calls."""

    GENERATE_REPORT = "/generate_report"
    GET_REPORT = "/get_report"
    GET_INCREMENT = "/get_increment"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a cohort's files are called, in `s3_path` and in S3, and how their urls are written."""

    urls: UrlStyle
    names: Mapping[str, str] = field(default_factory=dict)  # those that are called otherwise
    increment_suffix: str = "_inc"

    def name(self, file: str, kind: Kind) -> str:
        """The name of a file of SPEC.md in this cohort."""
        suffix = self.increment_suffix if kind is Kind.INCREMENT else ""
        return self.names.get(file, file) + suffix


# Seen over the years; a cohort that is not here speaks as the first does.
DIALECTS: Mapping[str, Dialect] = {
    "1": Dialect(UrlStyle.ENDPOINT),
    "2": Dialect(UrlStyle.FOREIGN, {"customer_research": "custom_research"}),
    "3": Dialect(UrlStyle.S3, {"user_order_log": "user_orders_log"}),
    "4": Dialect(
        UrlStyle.S3,
        {"customer_research": "custom_research", "user_order_log": "user_orders_log"},
        increment_suffix="",
    ),
}
COHORT = "1"


@dataclass(frozen=True, slots=True)
class Settings:
    """How long a task runs, and how often the server balks; counts run over authorized requests."""

    running_looks: int = 2  # looks at a task that find it running
    rate_limit_every: int = 0  # each nth request gets 429; 0: none
    failure_every: int = 0  # each nth request gets 503; 0: none
    retry_after: int | timedelta | str | None = 1  # sent with both


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was received and what became of it."""

    call: Call
    params: Mapping[str, str]
    authorized: bool
    status: int
    received_at: datetime


@dataclass(slots=True)
class _Task:
    """A report that was asked for: `outcome` is its status once it has run."""

    delivery: Delivery | None
    outcome: str
    looks: int = 0


@dataclass
class ReportsServer:
    """The running server, seen from the test that holds it. Safe to use from several threads."""

    s3: S3Server = field(repr=False)
    key: str = field(repr=False)
    nickname: str
    cohort: str
    settings: Settings
    url: str = ""  # without a path: what REPORTS_API_URL is set to
    _report: Delivery | None = field(default=None, repr=False)
    _increments: dict[date, Delivery] = field(default_factory=dict, repr=False)
    _tasks: dict[str, _Task] = field(default_factory=dict, repr=False)
    _outcomes: list[str] = field(default_factory=list, repr=False)
    _requests: list[Request] = field(default_factory=list, repr=False)
    _misbehaviour: Misbehaviour = field(default_factory=Misbehaviour, repr=False)
    _misbehaved: int = field(default=0, repr=False)
    _misbehaves_on: Call | None = field(default=None, repr=False)
    _balking: Balking = field(default_factory=Balking, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def dialect(self) -> Dialect:
        """How the cohort speaks."""
        return DIALECTS.get(self.cohort, DIALECTS[COHORT])

    def deliver(self, delivery: Delivery) -> None:
        """Put the files into S3 and hand them out from now on.

        A report is what tasks that are asked for from now on find; an increment replaces that of
        its day. Under the same id the files are replaced in place.
        """
        for name, content in delivery.files.items():
            self.s3.put(self.object_key(delivery, name), content)
        with self._lock:
            if delivery.kind is Kind.REPORT:
                self._report = delivery
            else:
                self._increments[delivery.start] = delivery

    def withdraw(self, day: date) -> None:
        """Say NOT FOUND of a day from now on; its files stay in S3."""
        with self._lock:
            self._increments.pop(day, None)

    def object_key(self, delivery: Delivery, file: str) -> str:
        """Where in the bucket a file of a delivery is."""
        name = self.dialect.name(file, delivery.kind)
        folder = f"cohort_{self.cohort}/{self.nickname}/{PROJECT_FOLDER}/{delivery.id}"
        return f"{folder}/{name}.csv"

    def file_url(self, delivery: Delivery, file: str) -> str:
        """The url of a file as the API gives it."""
        return self.s3.url_of(self.object_key(delivery, file), self.dialect.urls)

    @property
    def requests(self) -> list[Request]:
        """The requests received so far, refused ones too."""
        with self._lock:
            return list(self._requests)

    def asked(self, call: Call) -> int:
        """How often a call was made."""
        return sum(each.call is call for each in self.requests)

    def fail_next(self, *statuses: int) -> None:
        """Answer the next requests with these statuses, one each; 200 stands for a real answer."""
        with self._lock:
            self._balking.script(*statuses)

    def end_next_tasks(self, *outcomes: str) -> None:
        """End the tasks that are asked for next with these, as `FAILED`; later ones succeed."""
        with self._lock:
            self._outcomes.extend(outcomes)

    @contextmanager
    def misbehaving(self, fault: Misbehaviour, on: Call | None = None) -> Iterator[None]:
        """Misbehave within the block, at one call or at all; `next` and `on_page` mean nothing here."""
        with self._lock:
            self._misbehaviour, self._misbehaves_on, self._misbehaved = fault, on, 0
        try:
            yield
        finally:
            with self._lock:
                self._misbehaviour = Misbehaviour()

    def environment(self) -> dict[str, str]:
        """The settings by which ingestion finds this server."""
        return {
            "REPORTS_API_URL": self.url,
            "REPORTS_API_KEY": self.key,
            "REPORTS_NICKNAME": self.nickname,
            "REPORTS_COHORT": self.cohort,
        }

    def answer(self, call: Call, params: MultiDict[str, str], headers: Headers) -> Response:
        """Answer a request and write it into the log."""
        refused = self._refused_with(headers)
        with self._lock:
            fault = self._fault_for(call) if refused is None else Misbehaviour()
            response = refusal(refused) if refused else self._respond(call, params, fault)
            self._requests.append(
                Request(
                    call=call,
                    params=params.to_dict(),
                    authorized=refused is None,
                    status=response.status_code,
                    received_at=datetime.now(UTC),
                )
            )
        time.sleep(fault.delay_seconds)
        return response

    def _refused_with(self, headers: Headers) -> HTTPStatus | None:
        wanted = {
            "X-API-KEY": self.key,
            "X-Nickname": self.nickname,
            "X-Cohort": self.cohort,
            "X-Project": "True",
        }
        given = {name: headers.get(name) for name in wanted}
        if None in given.values():
            return HTTPStatus.UNAUTHORIZED
        same = [
            secrets.compare_digest((given[name] or "").encode(), value.encode())
            for name, value in wanted.items()
        ]
        return None if all(same) else HTTPStatus.FORBIDDEN

    def _fault_for(self, call: Call) -> Misbehaviour:
        """The misbehaviour if it is due for this request, counted."""
        fault = self._misbehaviour
        due = fault.times is None or self._misbehaved < fault.times
        if self._misbehaves_on not in (None, call) or not due:
            return Misbehaviour()
        self._misbehaved += 1
        return fault

    def _respond(self, call: Call, params: Mapping[str, str], fault: Misbehaviour) -> Response:
        balked = self._balking.refusal(
            rate_limit_every=self.settings.rate_limit_every,
            failure_every=self.settings.failure_every,
            retry_after=self.settings.retry_after,
        )
        if balked is not None:
            return balked
        if fault.status is not None:
            return refusal(fault.status, fault.retry_after)
        if fault.redirect is not None:
            return Response(status=HTTPStatus.FOUND, headers={"Location": fault.redirect})
        answers: Mapping[Call, Callable[[Mapping[str, str]], dict[str, Any] | Response]] = {
            Call.GENERATE_REPORT: self._generate_report,
            Call.GET_REPORT: self._get_report,
            Call.GET_INCREMENT: self._get_increment,
        }
        answer = answers[call](params)
        return answer if isinstance(answer, Response) else _json(answer, fault.body)

    def _generate_report(self, _params: Mapping[str, str]) -> dict[str, Any]:
        task_id = secrets.token_hex(12)
        outcome = self._outcomes.pop(0) if self._outcomes else SUCCESS
        if self._report is None:
            outcome = FAILED
        self._tasks[task_id] = _Task(self._report, outcome)
        return {"task_id": task_id}

    def _get_report(self, params: Mapping[str, str]) -> dict[str, Any] | Response:
        task_id = params.get("task_id", "")
        task = self._tasks.get(task_id)
        if task is None:
            return refusal(HTTPStatus.NOT_FOUND, message="no such task")
        task.looks += 1
        if task.looks <= self.settings.running_looks:
            return {"task_id": task_id, "status": RUNNING}
        if task.outcome != SUCCESS or task.delivery is None:
            return {"task_id": task_id, "status": task.outcome}
        data = {
            "report_id": task.delivery.id,
            "start_day": f"{task.delivery.start} 00:00:00",
            "end_date": f"{task.delivery.end} 00:00:00",
            "s3_path": self._urls(task.delivery),
        }
        return {"task_id": task_id, "status": SUCCESS, "data": data}

    def _get_increment(self, params: Mapping[str, str]) -> dict[str, Any] | Response:
        report_id, spelled = params.get("report_id", ""), params.get("date", "")
        if not is_id(report_id):
            return refusal(HTTPStatus.BAD_REQUEST, message="no such report")
        try:
            day = datetime.strptime(spelled, "%Y-%m-%dT00:00:00").date()  # noqa: DTZ007
        except ValueError:
            return refusal(HTTPStatus.BAD_REQUEST, message="date is YYYY-MM-DDT00:00:00")
        answer: dict[str, Any] = {"report_id": report_id, "date": spelled}
        found = self._increments.get(day)
        if found is None:
            return {**answer, "status": NOT_FOUND}
        data = {"increment_id": found.id, "s3_path": self._urls(found)}
        return {**answer, "status": SUCCESS, "data": data}

    def _urls(self, delivery: Delivery) -> dict[str, str]:
        return {
            self.dialect.name(file, delivery.kind): self.file_url(delivery, file)
            for file in FILES
            if file in delivery.files
        }


@contextmanager
def reports_server(
    s3: S3Server,
    *,
    key: str | None = None,
    nickname: str = NICKNAME,
    cohort: str = COHORT,
    settings: Settings | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[ReportsServer]:
    """Yield a server over the files in S3, on loopback and a free port, with a random key."""
    server = ReportsServer(
        s3,
        key=key or secrets.token_urlsafe(24),
        nickname=nickname,
        cohort=cohort,
        settings=settings or Settings(),
    )
    with serving(_application(server), "reports", host=host, port=port) as server.url:
        yield server


def _application(server: ReportsServer) -> Flask:
    app = Flask(__name__)

    def answer() -> Response:
        return server.answer(Call(request.path), request.args, request.headers)

    for call in Call:
        method = "POST" if call is Call.GENERATE_REPORT else "GET"
        app.add_url_rule(call.value, endpoint=call.name, view_func=answer, methods=[method])
    return app


def _json(answer: Mapping[str, Any], body: Body | None) -> Response:
    members = {name: json_bytes(value) for name, value in answer.items()}
    content = spoiled(members, body)
    mimetype = "text/html" if body is Body.HTML else "application/json"
    response = Response(content, mimetype=mimetype)
    if body is Body.TRUNCATED:
        response.set_data(content[: len(content) // 2])
        response.headers["Content-Length"] = str(len(content))
    return response
