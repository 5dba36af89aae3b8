"""The CRM server: what it serves when it behaves, and that each misbehaviour is one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from sandbox.crm import (
    CLIENTS_PATH,
    Body,
    CrmServer,
    Links,
    Misbehaviour,
    Next,
    RawRecord,
    Settings,
    crm_server,
)

ROOT = Path(__file__).parents[2]
EPOCH = "1970-01-01T00:00:00Z"
TIMEOUT_SECONDS = 10


def record(number: int, updated_at: str | None = "2024-12-08T00:00:00Z") -> dict[str, Any]:
    return {
        "id": f"c-{number}",
        "segment": "smb",
        "country": "RU",
        "plan": "pro",
        "created_at": "2024-01-01T00:00:00Z",
        "updated_at": updated_at,
    }


RECORDS = [record(number) for number in range(7)]


def get(server: CrmServer, url: str | None = None, **params: str) -> requests.Response:
    return requests.get(
        url or server.url + CLIENTS_PATH,
        params=params,
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=TIMEOUT_SECONDS,
        allow_redirects=False,
    )


def pages(server: CrmServer, updated_from: str = EPOCH) -> Iterator[requests.Response]:
    """Follow a call to its end, the way that the contract says."""
    answer = get(server, updated_from=updated_from)
    yield answer
    asked = {answer.url}
    while following := answer.json().get("next") or answer.links.get("next", {}).get("url"):
        answer = get(server, urljoin(answer.url, following))
        assert answer.url not in asked
        asked.add(answer.url)
        yield answer


def clients(server: CrmServer, updated_from: str = EPOCH) -> list[dict[str, Any]]:
    return [row for page in pages(server, updated_from) for row in page.json()["clients"]]


@pytest.fixture
def server() -> Iterator[CrmServer]:
    with crm_server(RECORDS, settings=Settings(page_size=3)) as running:
        yield running


@pytest.mark.parametrize("links", list(Links))
def test_all_records_come_page_by_page_in_serving_order(links: Links) -> None:
    with crm_server(RECORDS, settings=Settings(page_size=3, links=links)) as server:
        assert [len(page.json()["clients"]) for page in pages(server)] == [3, 3, 1]
        assert clients(server) == RECORDS


@pytest.mark.parametrize(
    ("links", "following"),
    [
        (Links.ABSOLUTE, "http://127.0.0.1:"),
        (Links.RELATIVE, CLIENTS_PATH + "?"),
        (Links.QUERY, "?"),
    ],
)
def test_next_is_spelled_as_told(links: Links, following: str) -> None:
    with crm_server(RECORDS, settings=Settings(page_size=6, links=links)) as server:
        first, last = (page.json() for page in pages(server))
        assert first["next"].startswith(following)
        assert last["next"] is None


def test_the_link_header_stands_alone_or_contradicts() -> None:
    with crm_server(RECORDS, settings=Settings(page_size=6, links=Links.HEADER)) as server:
        first, last = pages(server)
        assert "next" not in first.json()
        assert "next" not in last.json()
        assert "page=2" in first.links["next"]["url"]
        assert not last.links
    with crm_server(RECORDS, settings=Settings(page_size=6, links=Links.HEADER_TOO)) as server:
        first = get(server, updated_from=EPOCH)
        assert "page=2" in first.json()["next"]
        assert "page=1" in first.links["next"]["url"]


def test_updated_from_is_inclusive_and_falls_back_on_created_at(server: CrmServer) -> None:
    server.forget()
    midnight = "2024-12-08T00:00:00Z"
    served = [
        record(1, "2024-12-07T23:59:59.999999Z"),
        record(2, midnight),
        record(3, "2024-12-08T03:00:00+03:00"),  # the same instant
        record(4, "2024-12-08T00:00:00"),  # and again: naive is UTC
        record(5, None),  # created in January
        record(6, None) | {"created_at": midnight},
        record(7, None) | {"created_at": None},  # always
        {"id": "c-8"},  # always
    ]
    server.serve(served)
    assert clients(server, midnight) == [served[number] for number in (1, 2, 3, 5, 6, 7)]
    assert clients(server) == served


def test_late_and_repeated_versions_are_served_where_they_were_put_in(server: CrmServer) -> None:
    late, again = record(1, "2024-11-01T00:00:00Z"), RECORDS[0]
    first, *_ = pages(server)
    server.serve([late, again])
    rest = get(server, first.json()["next"])
    assert rest.json()["clients"] == RECORDS[3:6]  # nothing shifts while a client reads
    assert clients(server)[-2:] == [late, again]


def test_the_present_is_all_there_is_if_told_so() -> None:
    newer = record(3, "2024-12-09T00:00:00Z")
    settings = Settings(page_size=3, present_only=True)
    with crm_server([*RECORDS, newer], settings=settings) as server:
        assert clients(server) == [*RECORDS[:3], *RECORDS[4:], newer]


def test_the_token_is_checked_and_requests_are_logged(server: CrmServer) -> None:
    url = server.url + CLIENTS_PATH
    assert requests.get(url, timeout=TIMEOUT_SECONDS).status_code == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert requests.get(url, headers=wrong, timeout=TIMEOUT_SECONDS).status_code == 403
    assert get(server, updated_from=EPOCH).status_code == 200
    assert get(server, updated_from="yesterday").status_code == 400
    log = [(ask.sent_token, ask.authorized, ask.status) for ask in server.requests]
    assert log == [(False, False, 401), (True, False, 403), (True, True, 200), (True, True, 400)]
    assert server.requests[2].params == {"updated_from": EPOCH}
    assert server.token not in repr(server)
    assert server.environment() == {"CRM_API_URL": server.url, "CRM_API_TOKEN": server.token}


def test_it_limits_the_rate_and_fails_at_times() -> None:
    settings = Settings(rate_limit_every=3, failure_every=4, retry_after=7)
    with crm_server(RECORDS, settings=settings) as server:
        answers = [get(server, updated_from=EPOCH) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 503, 200, 429, 200, 503]
    assert {answer.headers.get("Retry-After") for answer in answers} == {None, "7"}


def test_failures_can_be_scripted(server: CrmServer) -> None:
    server.fail_next(500, 200, 429)
    statuses = [get(server, updated_from=EPOCH).status_code for _ in range(4)]
    assert statuses == [500, 200, 429, 200]


@pytest.mark.parametrize("body", list(Body))
def test_a_spoilt_body_is_no_page(server: CrmServer, body: Body) -> None:
    server.misbehave(Misbehaviour(body=body))
    with pytest.raises((requests.RequestException, TypeError, KeyError, AssertionError)):
        read_page(server)


def read_page(server: CrmServer) -> list[dict[str, Any]]:
    rows = get(server, updated_from=EPOCH).json()["clients"]
    assert isinstance(rows, list)
    assert all(isinstance(row, dict) for row in rows)
    return rows


def test_a_truncated_body_announces_the_whole(server: CrmServer) -> None:
    server.misbehave(Misbehaviour(body=Body.TRUNCATED))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        get(server, updated_from=EPOCH)


def test_next_can_be_wrong_in_every_way(server: CrmServer) -> None:
    first, second, *_ = pages(server)
    here = second.request.path_url

    def told(wrong: Next) -> Any:
        fault = Misbehaviour(next=wrong, on_page=2, other_host="http://evil.example")
        with server.misbehaving(fault):
            assert get(server, updated_from=EPOCH).json() == first.json()  # page 1 is as ever
            return get(server, second.url).json().get("next", "missing")

    assert told(Next.ITSELF) == here
    assert "page=1" in told(Next.FIRST)
    assert told(Next.OTHER_HOST).startswith(f"http://evil.example{CLIENTS_PATH}?")
    assert told(Next.MISSING) == "missing"
    assert told(Next.NULL) is None
    assert told(Next.NUMBER) == 2
    assert get(server, second.url).json() == second.json()


def test_a_page_can_fail_for_ever_or_for_a_while(server: CrmServer) -> None:
    with server.misbehaving(Misbehaviour(status=500, on_page=2)):
        first = get(server, updated_from=EPOCH)
        second = [get(server, first.json()["next"]).status_code for _ in range(5)]
        assert second == [500] * 5
    with server.misbehaving(Misbehaviour(status=503, on_page=2, times=2)):
        statuses = [get(server, first.json()["next"]).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]


def test_retry_after_can_be_a_date_or_nonsense(server: CrmServer) -> None:
    server.misbehave(Misbehaviour(status=503, retry_after=timedelta(hours=1)))
    told = parsedate_to_datetime(get(server, updated_from=EPOCH).headers["Retry-After"])
    away = told - datetime.now(UTC)
    assert timedelta(minutes=59) < away <= timedelta(hours=1)
    server.misbehave(Misbehaviour(status=429, retry_after="soon"))
    assert get(server, updated_from=EPOCH).headers["Retry-After"] == "soon"


def test_it_can_redirect_and_dawdle(server: CrmServer) -> None:
    server.misbehave(Misbehaviour(redirect="http://evil.example/", delay_seconds=0.2))
    begin = time.monotonic()
    answer = get(server, updated_from=EPOCH)
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://evil.example/")
    assert time.monotonic() - begin >= 0.2


def test_raw_records_go_out_as_they_are(server: CrmServer) -> None:
    server.forget()
    broken = b'{"id": "c-\xff\xfe", "segment": "\\u0000"}'
    instant = datetime(2024, 12, 8, tzinfo=UTC)
    server.serve([record(1), RawRecord(broken), RawRecord(b"nonsense", instant), record(2)])
    assert broken in get(server, updated_from=EPOCH).content
    later = get(server, updated_from="2024-12-09T00:00:00Z").content
    assert broken in later
    assert b"nonsense" not in later


def test_text_of_all_kinds_survives(server: CrmServer) -> None:
    server.forget()
    odd = record(1) | {"segment": "малый 🏪 \u0000 \"'\\", "plan": "\ud800", "country": ""}
    server.serve([odd])
    assert clients(server) == [odd]


def test_a_stopped_server_is_gone() -> None:
    with crm_server(RECORDS) as server:
        get(server, updated_from=EPOCH)
    with pytest.raises(requests.ConnectionError):
        get(server, updated_from=EPOCH)


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in RECORDS))
    command = [sys.executable, "-m", "sandbox.crm", "--records", str(path), "--page-size", "2"]
    chosen = "it's quoted"
    environment = os.environ | {"CRM_API_TOKEN": chosen}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        exports = process.stdout.readline() + process.stdout.readline()
        said = subprocess.run(
            ["sh", "-c", exports + 'printf "%s\n" "$CRM_API_URL" "$CRM_API_TOKEN"'],
            capture_output=True,
            text=True,
            check=True,
        )
        url, token = said.stdout.splitlines()
        assert token == chosen
        assert clients(CrmServer(token, Settings(), url)) == RECORDS
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 128 + signal.SIGTERM
