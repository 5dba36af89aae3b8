"""The report API: the three calls as SPEC.md has them, and each way in which it can fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
import requests

from sandbox.delivery import FILES, Delivery, increment, report
from sandbox.misbehaviour import Body, Misbehaviour
from sandbox.reports import (
    COHORT,
    DIALECTS,
    NICKNAME,
    Call,
    ReportsServer,
    Settings,
    reports_server,
)
from sandbox.s3 import S3Server, UrlStyle, s3_server

DAY = date(2025, 1, 2)
REPORT = report(date(2024, 12, 28), date(2025, 1, 1), dict.fromkeys(FILES, b"whole"), "test")
INCREMENT = increment(DAY, dict.fromkeys(FILES, b"day"), "test")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def server(s3: S3Server) -> Iterator[ReportsServer]:
    with reports_server(s3) as running:
        running.deliver(REPORT)
        running.deliver(INCREMENT)
        yield running


def headers(server: ReportsServer) -> dict[str, str]:
    """What a client sends along."""
    return {
        "X-Nickname": server.nickname,
        "X-Cohort": server.cohort,
        "X-API-KEY": server.key,
        "X-Project": "True",
    }


def call(server: ReportsServer, what: Call, **params: str) -> requests.Response:
    """Make a call."""
    method = "POST" if what is Call.GENERATE_REPORT else "GET"
    url = server.url + what.value
    return requests.request(
        method, url, params=params, headers=headers(server), timeout=10, allow_redirects=False
    )


def asked_for(server: ReportsServer) -> str:
    """Ask for a report; the task's id."""
    task_id = call(server, Call.GENERATE_REPORT).json()["task_id"]
    assert isinstance(task_id, str)
    return task_id


def looked_at(server: ReportsServer, task_id: str) -> dict[str, Any]:
    """Look at a task."""
    answer: dict[str, Any] = call(server, Call.GET_REPORT, task_id=task_id).json()
    return answer


def ended(server: ReportsServer) -> dict[str, Any]:
    """Ask for a report and wait for its task."""
    task_id = asked_for(server)
    while (answer := looked_at(server, task_id))["status"] == "RUNNING":
        pass
    return answer


def increment_of(server: ReportsServer, day: date, report_id: str = REPORT.id) -> dict[str, Any]:
    """Ask for an increment."""
    params = {"report_id": report_id, "date": f"{day}T00:00:00"}
    answer: dict[str, Any] = call(server, Call.GET_INCREMENT, **params).json()
    return answer


def test_a_task_runs_for_a_while_and_then_has_the_report(server: ReportsServer) -> None:
    task_id = asked_for(server)
    for _ in range(server.settings.running_looks):
        assert looked_at(server, task_id) == {"task_id": task_id, "status": "RUNNING"}
    for _ in range(2):  # it stays there
        assert looked_at(server, task_id) == {
            "task_id": task_id,
            "status": "SUCCESS",
            "data": {
                "report_id": REPORT.id,
                "start_day": "2024-12-28 00:00:00",
                "end_date": "2025-01-01 00:00:00",
                "s3_path": {name: server.file_url(REPORT, name) for name in FILES},
            },
        }
    assert [server.asked(each) for each in Call] == [1, 4, 0]


def test_a_report_id_ends_with_what_has_to_be_encoded(server: ReportsServer) -> None:
    assert REPORT.id.endswith("=")
    assert increment_of(server, DAY)["report_id"] == REPORT.id
    for wrong in ("another", REPORT.id.rstrip("="), ""):
        answer = call(server, Call.GET_INCREMENT, report_id=wrong, date=f"{DAY}T00:00:00")
        assert answer.status_code == 400


def test_an_increment_or_not_found(server: ReportsServer) -> None:
    found = increment_of(server, DAY)
    assert found == {
        "report_id": REPORT.id,
        "date": "2025-01-02T00:00:00",
        "status": "SUCCESS",
        "data": {
            "increment_id": INCREMENT.id,
            "s3_path": {f"{name}_inc": server.file_url(INCREMENT, name) for name in FILES},
        },
    }
    next_day = increment_of(server, DAY + timedelta(days=1))
    assert (next_day["status"], "data" in next_day) == ("NOT FOUND", False)
    server.withdraw(DAY)
    assert increment_of(server, DAY)["status"] == "NOT FOUND"
    server.deliver(INCREMENT)
    assert increment_of(server, DAY) == found


@pytest.mark.parametrize("spelled", ["2025-01-02", "02.01.2025T00:00:00", ""])
def test_a_date_is_written_in_one_way(server: ReportsServer, spelled: str) -> None:
    answer = call(server, Call.GET_INCREMENT, report_id=REPORT.id, date=spelled)
    assert answer.status_code == 400


def test_a_delivery_is_corrected_in_place_or_under_another_id(server: ReportsServer) -> None:
    in_place = replace(INCREMENT, files=dict.fromkeys(FILES, b"corrected"))
    server.deliver(in_place)
    assert increment_of(server, DAY)["data"]["increment_id"] == INCREMENT.id
    key = server.object_key(INCREMENT, "user_order_log")
    assert server.s3.get(key) == b"corrected"
    other = increment(DAY, INCREMENT.files, "test", 2)
    server.deliver(other)
    assert increment_of(server, DAY)["data"]["increment_id"] == other.id != INCREMENT.id
    assert server.s3.get(key) == b"corrected"


def test_a_task_has_the_report_of_when_it_was_asked_for(server: ReportsServer) -> None:
    first = asked_for(server)
    newer = report(REPORT.start, DAY, REPORT.files, "newer")
    server.deliver(newer)
    for _ in range(server.settings.running_looks):
        looked_at(server, first)
    assert looked_at(server, first)["data"]["report_id"] == REPORT.id
    assert ended(server)["data"]["report_id"] == newer.id
    # Both ids are good for increments.
    assert increment_of(server, DAY)["data"] == increment_of(server, DAY, newer.id)["data"]


def test_a_file_that_is_not_delivered_has_no_url(server: ReportsServer) -> None:
    files = {name: b"" for name in FILES if name != "price_log"}
    server.deliver(replace(INCREMENT, files=files))
    urls = increment_of(server, DAY)["data"]["s3_path"]
    assert sorted(urls) == sorted(f"{name}_inc" for name in files)


@pytest.mark.parametrize("cohort", DIALECTS)
def test_names_and_urls_drift_by_cohort(s3: S3Server, cohort: str) -> None:
    with reports_server(s3, cohort=cohort, settings=Settings(running_looks=0)) as server:
        server.deliver(REPORT)
        server.deliver(INCREMENT)
        whole = ended(server)["data"]["s3_path"]
        day = increment_of(server, DAY)["data"]["s3_path"]
    dialect = DIALECTS[cohort]
    assert len(whole) == len(day) == 4
    for delivery, urls in ((REPORT, whole), (INCREMENT, day)):
        for name, url in urls.items():
            key = f"cohort_{cohort}/{NICKNAME}/project/{delivery.id}/{name}.csv"
            assert url == s3.url_of(key, dialect.urls)
            assert s3.get(key) == delivery.files["price_log"]
    assert {UrlStyle.ENDPOINT, UrlStyle.FOREIGN, UrlStyle.S3} == {d.urls for d in DIALECTS.values()}
    assert {d.name("user_order_log", REPORT.kind) for d in DIALECTS.values()} == {
        "user_order_log",
        "user_orders_log",
    }
    assert {d.name("customer_research", INCREMENT.kind) for d in DIALECTS.values()} == {
        "customer_research_inc",
        "custom_research_inc",
        "custom_research",
    }


@pytest.mark.parametrize("name", ["X-Nickname", "X-Cohort", "X-API-KEY", "X-Project"])
def test_without_the_right_headers_nothing_is_answered(server: ReportsServer, name: str) -> None:
    right = headers(server)
    url = server.url + Call.GENERATE_REPORT.value
    missing = {key: value for key, value in right.items() if key != name}
    assert requests.post(url, headers=missing, timeout=10).status_code == 401
    wrong = {**right, name: "somebody else"}
    refused = requests.post(url, headers=wrong, timeout=10)
    assert (refused.status_code, "task_id" in refused.text) == (403, False)
    assert [each.authorized for each in server.requests] == [False, False]


def test_the_key_is_in_no_repr(server: ReportsServer) -> None:
    assert server.key not in repr(server)
    assert server.environment() == {
        "REPORTS_API_URL": server.url,
        "REPORTS_API_KEY": server.key,
        "REPORTS_NICKNAME": NICKNAME,
        "REPORTS_COHORT": COHORT,
    }


def test_it_balks_now_and_then(s3: S3Server) -> None:
    settings = Settings(rate_limit_every=3, failure_every=4, retry_after=2)
    with reports_server(s3, settings=settings) as server:
        server.deliver(REPORT)
        answers = [call(server, Call.GENERATE_REPORT) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 503]
        assert [answer.headers.get("Retry-After") for answer in answers[2:]] == ["2", "2"]
    assert server.asked(Call.GENERATE_REPORT) == 4


def test_it_fails_as_told(server: ReportsServer) -> None:
    server.fail_next(500, 200, 403)
    statuses = [call(server, Call.GENERATE_REPORT).status_code for _ in range(4)]
    assert statuses == [500, 200, 403, 200]


def test_tasks_end_as_told(server: ReportsServer) -> None:
    server.end_next_tasks("FAILED", "CANCELLED")
    answers = [ended(server) for _ in range(3)]
    assert [answer["status"] for answer in answers] == ["FAILED", "CANCELLED", "SUCCESS"]
    assert ["data" in answer for answer in answers] == [False, False, True]
    assert call(server, Call.GET_REPORT, task_id="another").status_code == 404


def test_without_a_report_the_task_fails(s3: S3Server) -> None:
    with reports_server(s3) as server:
        assert ended(server)["status"] == "FAILED"


@pytest.mark.parametrize("body", [Body.INVALID_JSON, Body.EMPTY, Body.HTML, Body.NOT_AN_OBJECT])
def test_an_answer_that_is_no_object(server: ReportsServer, body: Body) -> None:
    with server.misbehaving(Misbehaviour(body=body)):
        answer = call(server, Call.GENERATE_REPORT)
    if body is Body.NOT_AN_OBJECT:
        assert isinstance(answer.json(), list)
    else:
        with pytest.raises(requests.JSONDecodeError):
            answer.json()
    assert call(server, Call.GENERATE_REPORT).json()


def test_half_an_answer(server: ReportsServer) -> None:
    with (
        server.misbehaving(Misbehaviour(body=Body.TRUNCATED)),
        pytest.raises(requests.exceptions.ChunkedEncodingError),
    ):
        call(server, Call.GENERATE_REPORT)


def test_misbehaviour_of_one_call_a_number_of_times(server: ReportsServer) -> None:
    fault: AbstractContextManager[None] = server.misbehaving(
        Misbehaviour(redirect="https://elsewhere.example/", times=1), on=Call.GET_INCREMENT
    )
    params = {"report_id": REPORT.id, "date": f"{DAY}T00:00:00"}
    with fault:
        assert call(server, Call.GENERATE_REPORT).status_code == 200
        statuses = [call(server, Call.GET_INCREMENT, **params).status_code for _ in range(2)]
    assert statuses == [302, 200]


def test_ids_tell_deliveries_apart() -> None:
    made: list[Delivery] = [REPORT, INCREMENT, increment(DAY, {}, "another")]
    assert len({delivery.id for delivery in made}) == 3
    assert increment(DAY, {}, "test").id == INCREMENT.id
