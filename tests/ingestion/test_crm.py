"""The CRM over HTTP: paging, patience, secrets, the watermark, and versions that are only appended."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sandbox.crm import Body, CrmServer, Links, Misbehaviour, Next, RawRecord, Settings
from tests.ingestion.scene import (
    DEC,
    arrive,
    at,
    client,
    december,
    having,
    noons,
    quarantine,
    refused,
    telemetry,
)
from tests.support.vitrina import Vitrina

EPOCH = "1970-01-01T00:00:00Z"
SEVEN = [client(f"c-{number}") for number in range(7)]


@pytest.fixture
def crm(vitrina: Vitrina) -> CrmServer:
    """The CRM with three records a page."""
    vitrina.outside.crm.settings = Settings(page_size=3)
    return vitrina.outside.crm


@dataclass
class Stranger:
    """Another host, which writes down whatever it is asked."""

    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with listening() as found:
        yield found


@contextmanager
def listening() -> Iterator[Stranger]:
    found = Stranger()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append((self.path, self.headers.get("Authorization")))
            content = b'{"clients": [], "next": null}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def versions(vitrina: Vitrina) -> list[dict[str, Any]]:
    return vitrina.query("select * from raw.crm_clients order by _served_no")


def asked_since(crm: CrmServer) -> list[str]:
    """The `updated_from` of each call."""
    return [request.params["updated_from"] for request in crm.requests if request.page == 1]


# --- paging -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", list(Links))
def test_mistake_t08_all_pages_are_read(vitrina: Vitrina, crm: CrmServer, links: Links) -> None:
    crm.settings = Settings(page_size=3, links=links)
    crm.serve(SEVEN)
    assert vitrina.ingest("crm")["rows_landed"] == 7
    assert [row["id"] for row in versions(vitrina)] == [f"c-{number}" for number in range(7)]
    assert [request.page for request in crm.requests] == [1, 2, 3]
    assert all(request.authorized for request in crm.requests)


@pytest.mark.parametrize("kind", [Next.MISSING, Next.NULL])
def test_one_page_without_next_is_legal(vitrina: Vitrina, crm: CrmServer, kind: Next) -> None:
    crm.serve(SEVEN)
    with crm.misbehaving(Misbehaviour(next=kind)):
        assert vitrina.ingest("crm")["rows_landed"] == 3
    assert len(crm.requests) == 1


@pytest.mark.parametrize("kind", [Next.ITSELF, Next.FIRST, Next.NUMBER])
def test_a_next_that_leads_nowhere(vitrina: Vitrina, crm: CrmServer, kind: Next) -> None:
    crm.serve(SEVEN)
    with crm.misbehaving(Misbehaviour(next=kind)):
        said = refused(vitrina, vitrina.run("crm"))
    assert ("no url but int" if kind is Next.NUMBER else "second time") in said
    assert len(crm.requests) < 10


# --- the token stays here ---------------------------------------------------------------------------


@pytest.mark.parametrize("disguise", ["{stranger}", "{stranger}\\@{crm}", "{stranger}/\\@{crm}"])
def test_next_on_another_host(
    vitrina: Vitrina, crm: CrmServer, stranger: Stranger, disguise: str
) -> None:
    """Also where the url's text is read in two ways: what counts is where the request would go."""
    crm.serve(SEVEN)
    host = disguise.format(stranger=stranger.url, crm=crm.url.removeprefix("http://"))
    with crm.misbehaving(Misbehaviour(next=Next.OTHER_HOST, other_host=host)):
        said = refused(vitrina, vitrina.run("crm"))
    assert stranger.requests == []
    assert "another host" in said
    assert crm.token not in said


@pytest.mark.parametrize("host", ["http://[::1", "http://127.0.0.1:port", "https:///", "ftp://x"])
def test_next_that_is_no_url(vitrina: Vitrina, crm: CrmServer, host: str) -> None:
    crm.serve(SEVEN)
    with crm.misbehaving(Misbehaviour(next=Next.OTHER_HOST, other_host=host)):
        refused(vitrina, vitrina.run("crm"))
    assert len(crm.requests) == 1


def test_a_redirect_is_not_followed(vitrina: Vitrina, crm: CrmServer, stranger: Stranger) -> None:
    crm.serve(SEVEN)
    with crm.misbehaving(Misbehaviour(redirect=f"{stranger.url}/api/clients")):
        said = refused(vitrina, vitrina.run("crm"))
    assert stranger.requests == []
    assert "302" in said


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_fails_at_once(vitrina: Vitrina, crm: CrmServer, status: int) -> None:
    wrong = "wröng-tökén-0123456789" if status == 403 else ""
    crm.fail_next(status)
    answer = having(vitrina, **({"CRM_API_TOKEN": wrong} if wrong else {})).run("crm")
    said = refused(vitrina, answer)
    assert str(status) in said
    assert len(crm.requests) == 1
    assert crm.token not in said
    assert "0123456789" not in said


def test_a_token_from_a_file_ends_with_a_newline(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve(SEVEN)
    assert having(vitrina, CRM_API_TOKEN=f"{crm.token}\n").ingest("crm")["rows_landed"] == 7
    answer = having(vitrina, CRM_API_TOKEN=f"{crm.token}\nmore").run("crm")
    assert answer.status == 2
    assert "settings: what the header Authorization is made of holds a line's end" in answer.log
    assert crm.token not in answer.log + answer.output


def test_a_netrc_does_not_replace_the_token(
    vitrina: Vitrina, crm: CrmServer, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    crm.serve(SEVEN)
    assert having(vitrina, NETRC=str(netrc)).ingest("crm")["rows_landed"] == 7


# --- patience ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_failures_that_pass_are_waited_out(vitrina: Vitrina, crm: CrmServer, status: int) -> None:
    crm.serve(SEVEN)
    crm.fail_next(status, status, 200, status)
    assert vitrina.ingest("crm")["rows_landed"] == 7
    assert [r.status for r in crm.requests] == [status, status, 200, status, 200, 200]


@pytest.mark.parametrize("retry_after", [1, timedelta(seconds=2), "soon"])
def test_retry_after(vitrina: Vitrina, crm: CrmServer, retry_after: int | timedelta | str) -> None:
    """Seconds, a date (which has no fractions), or what nobody can read and is as good as none."""
    crm.serve(SEVEN)
    patient = having(vitrina, HTTP_BACKOFF_MAX_SECONDS="5")
    with crm.misbehaving(Misbehaviour(status=429, retry_after=retry_after, times=1)):
        assert patient.ingest("crm")["rows_landed"] == 7
    first, second = (request.received_at for request in crm.requests[:2])
    waited = (second - first).total_seconds()
    assert waited < 0.9 if retry_after == "soon" else 0.9 < waited < 4


def test_patience_ends(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve(SEVEN)
    with crm.misbehaving(Misbehaviour(status=500, on_page=2)):
        said = refused(vitrina, having(vitrina, HTTP_RETRIES="2").run("crm"))
    assert "500" in said
    assert [request.page for request in crm.requests] == [1, 2, 2, 2]


def test_nobody_there(vitrina: Vitrina) -> None:
    said = refused(vitrina, having(vitrina, CRM_API_URL="http://127.0.0.1:9").run("crm"))
    assert "127.0.0.1:9" in said


def test_silence_is_not_waited_for_for_ever(vitrina: Vitrina, crm: CrmServer) -> None:
    impatient = having(vitrina, HTTP_TIMEOUT_SECONDS="0.2", HTTP_RETRIES="0")
    with crm.misbehaving(Misbehaviour(delay_seconds=1.0)):
        assert "Timeout" in refused(vitrina, impatient.run("crm"))


BAD_BODIES = [body for body in Body if body is not Body.CLIENTS_NOT_OBJECTS]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_an_answer_that_is_none(vitrina: Vitrina, crm: CrmServer, body: Body) -> None:
    """On the second page, so that there is something that must not be landed."""
    crm.serve(SEVEN)
    with crm.misbehaving(Misbehaviour(body=body, on_page=2)):
        said = refused(vitrina, vitrina.run("crm"))
    assert len(crm.requests) == 2
    if body is Body.NO_CLIENTS:
        assert "['items', 'next']" in said
    crm.misbehave(Misbehaviour())
    assert vitrina.ingest("crm")["rows_landed"] == 7
    assert asked_since(crm) == [EPOCH, EPOCH]


# --- what is set aside ------------------------------------------------------------------------------


def test_what_cannot_be_used_is_kept_once_and_stops_nothing(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    crm.serve([client(), client(None), client("c-2", None), client(None), client("c-3")])
    first, second = vitrina.ingest("crm"), vitrina.ingest("crm")
    assert (first["rows_landed"], first["quarantined"]) == (2, 3)
    # The one without any instant is served by every call; the others by the overlap.
    assert (second["rows_landed"], second["quarantined"]) == (0, 3)
    found = [(row["source"], row["place"], row["reason"]) for row in quarantine(vitrina)]
    # Two that are the same are two, however often they are seen.
    assert sorted(found) == [
        ("crm", "clients", "neither updated_at nor created_at"),
        ("crm", "clients", "no id"),
        ("crm", "clients", "no id"),
    ]


def test_records_that_are_no_objects(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve([client()])
    with crm.misbehaving(Misbehaviour(body=Body.CLIENTS_NOT_OBJECTS)):
        assert vitrina.ingest("crm")["quarantined"] == 3
    assert [row["payload"] for row in quarantine(vitrina)] == ['"c-1"', "2", "null"]


NOT_STORABLE = [
    b'{"id":"caf\xe9" ,"updated_at":"2024-12-05T10:00:00Z"}',
    b'{"updated_at":"2024-12-05T10:00:00Z", "id": "a\\u0000b"}',
    b'{"id": "\\ud800", "updated_at": "2024-12-05T10:00:00Z"}',
    b'{"id": "\\udce9 \xe9", "updated_at": "2024-12-05T10:00:00Z"}',
    b'{"id": "\xed\xa0\x80", "updated_at": "2024-12-05T10:00:00Z"}',
    b'{"id": null, "note": "\xff\xfe"}',
]


def test_what_no_text_can_hold_is_kept_with_its_very_bytes(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    crm.serve([client(), *map(RawRecord, NOT_STORABLE), client("c-2")])
    answer = vitrina.ingest("crm")
    assert (answer["rows_landed"], answer["quarantined"]) == (2, len(NOT_STORABLE))
    kept = quarantine(vitrina)
    assert {row["encoding"] for row in kept} == {"base64"}
    assert sorted(base64.b64decode(row["payload"]) for row in kept) == sorted(NOT_STORABLE)


def test_unused_fields_stop_no_record(vitrina: Vitrina, crm: CrmServer) -> None:
    instant = b'"updated_at": "2024-12-05T10:00:00Z"'
    crm.serve(
        [
            RawRecord(b'{"id": "zero", "note": "\\u0000", ' + instant + b"}"),
            RawRecord(b'{"id": "bytes", "note": "\xff", ' + instant + b"}"),
            RawRecord(b'{"id": "half", "note": "\\ud800", ' + instant + b"}"),
            RawRecord(b'{"id": "long", "note": ' + b"9" * 5_000 + b", " + instant + b"}"),
            RawRecord(b'{"id": "twice", "id": "last", ' + instant + b"}"),
            RawRecord(
                b'{"id": "deep", "note": ' + b"[" * 300 + b"]" * 300 + b", " + instant + b"}"
            ),
        ]
    )
    assert vitrina.ingest("crm")["quarantined"] == 0
    landed = [row["id"] for row in versions(vitrina)]
    assert landed == ["zero", "bytes", "half", "long", "last", "deep"]


def test_numbers_that_json_has_not(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve([RawRecord(b'{"id": 1, "plan": NaN, "updated_at": "2024-12-05"}'), client()])
    answer = vitrina.ingest("crm")
    assert (answer["rows_landed"], answer["quarantined"]) == (1, 1)
    assert "NaN" in quarantine(vitrina)[0]["payload"]


def test_the_ends_of_the_calendar_are_instants_too(vitrina: Vitrina, crm: CrmServer) -> None:
    """They come as "never" and as some languages' null; no zone may push them over the edge."""
    crm.serve([client("never", "9999-12-31T23:59:59Z")])
    # Served whatever is asked for: it is before any `updated_from`.
    crm.serve([RawRecord(b'{"id": "null", "updated_at": "0001-01-01T00:00:00Z"}')])
    for zone in ("Europe/Moscow", "America/New_York", "Europe/Moscow"):
        vitrina.query("delete from raw.settings where true")
        assert having(vitrina, BUSINESS_TIMEZONE=zone).ingest("crm")["quarantined"] == 0
    landed = vitrina.query("select id from raw.crm_clients order by updated_at")
    assert [row["id"] for row in landed] == ["null", "never"]


def test_a_crm_that_knows_only_the_beginning_of_time(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve([RawRecord(b'{"id": "null", "updated_at": "0001-01-01T00:00:00Z"}')])
    assert [vitrina.ingest("crm")["rows_landed"] for _ in range(2)] == [1, 0]
    assert asked_since(crm) == [EPOCH, EPOCH]


# --- the watermark ----------------------------------------------------------------------------------


def test_mistake_t05_what_was_missed_for_days_is_still_fetched(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    crm.serve([client("c-1", "2024-12-02T10:00:00.900Z")])
    vitrina.ingest("crm")
    # Nobody ran for a week, in which this happened; and a call that failed moves nothing.
    crm.serve([client("c-2", f"2024-12-{day:02d}T10:00:00Z") for day in (4, 6, 8)])
    crm.fail_next(401)
    assert vitrina.run("crm").status == 1
    assert vitrina.ingest("crm")["rows_landed"] == 3
    assert vitrina.ingest("crm")["rows_landed"] == 0
    # The greatest updated_at seen less a day, never later for want of fractions.
    back = "2024-12-01T10:00:00Z"
    assert asked_since(crm) == [EPOCH, back, back, "2024-12-07T10:00:00Z"]


def test_mistake_t05_an_instant_in_the_future_hides_nothing(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    crm.serve([client("c-1", "2999-01-01T00:00:00Z")])
    before = datetime.now(UTC).replace(microsecond=0)
    vitrina.ingest("crm")
    vitrina.ingest("crm")
    asked = at(asked_since(crm)[1]) + timedelta(days=1)
    assert before <= asked <= datetime.now(UTC)


def test_overlap_is_a_setting(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve([client("c-1", "2024-12-02T10:00:00Z")])
    wide = having(vitrina, CRM_OVERLAP_DAYS="2.5")
    wide.ingest("crm")
    wide.ingest("crm")
    assert asked_since(crm) == [EPOCH, "2024-11-29T22:00:00Z"]


def test_nothing_served_moves_nothing(vitrina: Vitrina, crm: CrmServer) -> None:
    assert vitrina.ingest("crm")["rows_landed"] == 0
    vitrina.ingest("crm")
    assert asked_since(crm) == [EPOCH, EPOCH]


def test_a_start_date_moves_the_watermark_back_only(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve([client("c-1", "2024-12-05T10:00:00Z")])
    vitrina.ingest("crm", "--start-date", "2024-12-20")  # the first call asks for everything
    vitrina.ingest("crm", "--start-date", "2024-12-20")
    vitrina.ingest("crm", "--start-date", "2024-12-01")
    vitrina.ingest("crm", "--date", "2024-12-02")
    vitrina.ingest("crm", "--start-date", "2024-12-03", "--end-date", "2024-12-04")
    vitrina.ingest("crm")
    assert asked_since(crm) == [
        EPOCH,
        "2024-12-04T10:00:00Z",
        "2024-11-30T21:00:00Z",  # midnight in Moscow
        "2024-12-01T21:00:00Z",
        "2024-12-02T21:00:00Z",
        "2024-12-04T10:00:00Z",
    ]


# --- versions ---------------------------------------------------------------------------------------


def test_mistake_t06_versions_are_appended_and_never_overwritten(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    newer = client("c-1", "2024-12-05T10:00:00Z", plan="pro")
    older = client("c-1", "2024-12-04T18:00:00Z", plan="basic")
    for records, added in (([newer], 1), ([older], 1), ([newer, older], 0)):
        crm.serve(records)
        assert vitrina.ingest("crm")["rows_landed"] == added
    landed = [(row["updated_at"], row["plan"]) for row in versions(vitrina)]
    assert landed == [(at("2024-12-05T10:00"), "pro"), (at("2024-12-04T18:00"), "basic")]


def test_mistake_t07_two_versions_of_one_key_in_one_batch(vitrina: Vitrina, crm: CrmServer) -> None:
    crm.serve([client(plan="a"), client(plan="b"), client(plan="a"), client(plan="c", note=1)])
    assert vitrina.ingest("crm")["rows_landed"] == 3
    assert [row["plan"] for row in versions(vitrina)] == ["b", "a", "c"]


def test_mistake_t07_of_equal_instants_the_last_served_holds(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    """A, B, and A again: three calls, two versions, and A is the one that holds."""
    arrive(vitrina, noons(4, 5, 6))
    telemetry(vitrina, DEC[6])
    landed = []
    for plan in ("a", "b", "a", "a"):
        crm.forget()
        crm.serve([client("c-1", "2024-12-05T10:00:00Z", plan=plan)])
        answer = vitrina.ingest("crm")
        landed.append((answer["rows_landed"], answer["days_changed"]))
        assert versions(vitrina)[-1]["plan"] == plan
    both = december(5, 6)
    assert landed == [(1, both), (1, both), (0, both), (0, [])]
    assert len(versions(vitrina)) == 2


def test_mistake_t09_a_load_names_the_days_that_it_can_change(
    vitrina: Vitrina, crm: CrmServer
) -> None:
    arrive(vitrina, noons(*range(2, 9)))
    telemetry(vitrina, DEC[5], DEC[9])
    crm.serve([client("c-1", "2024-12-03T10:00:00Z", plan="a")])
    assert vitrina.ingest("crm")["days_changed"] == december(3, 4, 5, 6, 7, 8)
    crm.serve([client("c-1", "2024-12-07T10:00:00Z", plan="c")])
    assert vitrina.ingest("crm")["days_changed"] == december(7, 8)
    crm.serve([client("c-1", "2024-12-05T10:00:00Z", plan="b")])
    since = ("--start-date", "2024-12-01")
    assert vitrina.ingest("crm", *since)["days_changed"] == december(5, 6)
    assert vitrina.ingest("crm", *since)["days_changed"] == []
    crm.serve([client("c-1", "2024-12-02T22:00:00Z", plan="0", created_at="2024-12-01T20:00:00Z")])
    assert vitrina.ingest("crm", *since)["days_changed"] == december(2)
    # Another client touches no more than its own days.
    crm.serve([client("c-2", "2024-12-08T10:00:00Z")])
    assert vitrina.ingest("crm")["days_changed"] == december(8)
