"""The telemetry oracle against cases worked by hand: every expected number is a literal."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest

from .telemetry import (
    MOSCOW,
    ClientVersion,
    Event,
    MartRow,
    business_day,
    client_history,
    client_telemetry,
    current_clients,
    deduplicated,
    differences,
    quarantined_clients,
)

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
SAO_PAULO = ZoneInfo("America/Sao_Paulo")
DAY = date(2024, 12, 8)
NOON = datetime(2024, 12, 8, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def crm(client_id: object, updated_at: object, **others: object) -> dict[str, object]:
    record: dict[str, object] = {"segment": "smb", "country": "DE", "plan": "basic"}
    return record | {"id": client_id, "created_at": None, "updated_at": updated_at} | others


def event(**others: object) -> Event:
    row: dict[str, object] = {"event_id": None, "client_id": "a", "event_type": "click"}
    row |= {"duration_ms": 100, "status": "ok", "session_id": "s1", "event_ts": NOON}
    return row | others


def only(rows: list[MartRow]) -> MartRow:
    assert len(rows) == 1
    return rows[0]


def latencies(*durations: object) -> tuple[float | None, float | None]:
    row = only(client_telemetry([], [event(duration_ms=duration) for duration in durations]))
    return row.avg_latency_ms, row.p95_latency_ms


# --- clients --------------------------------------------------------------------------------------


def test_one_version_is_open_and_begins_at_its_creation() -> None:
    record = crm(42, "2024-03-02T10:00:00Z", created_at="2024-01-01T00:00:00Z")
    version = ClientVersion(
        id="42",
        segment="smb",
        country="DE",
        plan="basic",
        created_at=utc("2024-01-01"),
        updated_at=utc("2024-03-02T10:00:00"),
        valid_from=utc("2024-01-01"),
        valid_to=None,
    )
    assert client_history([record]) == {"42": [version]}
    assert current_clients([record]) == {"42": version}


def test_versions_chain_by_updated_at_in_any_order_of_arrival() -> None:
    records = [
        crm("a", "2024-03-01T00:00:00Z", plan="first", created_at="2024-02-01T00:00:00Z"),
        crm("a", "2024-05-01T00:00:00Z", plan="second", created_at="2024-02-01T00:00:00Z"),
        crm("a", "2024-07-01T00:00:00Z", plan="third", created_at="2024-02-01T00:00:00Z"),
    ]
    for served in permutations(records):
        versions = client_history(served)["a"]
        assert [(v.plan, v.valid_from, v.valid_to) for v in versions] == [
            ("first", utc("2024-02-01"), utc("2024-05-01")),
            ("second", utc("2024-05-01"), utc("2024-07-01")),
            ("third", utc("2024-07-01"), None),
        ]
        assert current_clients(served)["a"].plan == "third"


def test_a_late_older_version_takes_the_beginning_from_the_one_that_had_it() -> None:
    newer = crm("a", "2024-05-01T00:00:00Z", created_at="2024-01-01T00:00:00Z")
    older = crm("a", "2024-03-01T00:00:00Z", created_at="2024-02-01T00:00:00Z")
    assert [v.valid_from for v in client_history([newer])["a"]] == [utc("2024-01-01")]
    assert [v.valid_from for v in client_history([newer, older])["a"]] == [
        utc("2024-02-01"),
        utc("2024-05-01"),
    ]


def test_for_equal_updated_at_the_one_served_last_holds() -> None:
    one = crm("a", "2024-03-01T00:00:00Z", plan="one")
    two = crm("a", "2024-03-01T03:00:00+03:00", plan="two")
    assert [v.plan for v in client_history([one, two])["a"]] == ["two"]
    assert [v.plan for v in client_history([two, one])["a"]] == ["one"]
    assert [v.plan for v in client_history([one, two, one])["a"]] == ["one"]


def test_equal_content_at_another_updated_at_is_another_version() -> None:
    served = [crm("a", "2024-03-01T00:00:00Z"), crm("a", "2024-03-01T00:00:00.000001Z")]
    assert len(client_history(served)["a"]) == 2


def test_null_attributes_overwrite() -> None:
    served = [crm("a", "2024-03-01T00:00:00Z"), crm("a", "2024-04-01T00:00:00Z", plan=None)]
    del served[1]["country"]
    current = current_clients(served)["a"]
    assert (current.segment, current.country, current.plan) == ("smb", None, None)


def test_a_null_updated_at_means_created_at() -> None:
    served = [
        crm("a", "2024-03-01T00:00:00Z", plan="updated"),
        crm("a", None, plan="created", created_at="2024-02-01T00:00:00Z"),
    ]
    versions = client_history(served)["a"]
    assert [(v.plan, v.updated_at, v.valid_from, v.valid_to) for v in versions] == [
        ("created", utc("2024-02-01"), utc("2024-02-01"), utc("2024-03-01")),
        ("updated", utc("2024-03-01"), utc("2024-03-01"), None),
    ]


def test_a_null_updated_at_ties_with_an_equal_one() -> None:
    explicit = crm("a", "2024-02-01T00:00:00Z", plan="explicit")
    implied = crm("a", None, plan="implied", created_at="2024-02-01T00:00:00Z")
    assert [v.plan for v in client_history([explicit, implied])["a"]] == ["implied"]
    assert [v.plan for v in client_history([implied, explicit])["a"]] == ["explicit"]


def test_created_at_after_updated_at_begins_nothing() -> None:
    record = crm("a", "2024-03-01T00:00:00Z", created_at="2024-06-01T00:00:00Z")
    assert client_history([record])["a"][0].valid_from == utc("2024-03-01")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-03-01T10:00:00Z", "2024-03-01T10:00:00"),
        ("2024-03-01T10:00:00", "2024-03-01T10:00:00"),
        ("2024-03-01T10:00:00+03:00", "2024-03-01T07:00:00"),
        ("2024-03-01T10:00:00-05:30", "2024-03-01T15:30:00"),
        ("2024-03-01T10:00:00.5Z", "2024-03-01T10:00:00.500000"),
        ("2024-03-01T10:00:00.123Z", "2024-03-01T10:00:00.123000"),
        ("2024-03-01T10:00:00.123456+03:00", "2024-03-01T07:00:00.123456"),
        ("2024-03-01 10:00:00", "2024-03-01T10:00:00"),
        ("2024-03-01", "2024-03-01T00:00:00"),
    ],
)
def test_instants_of_the_crm_are_read_to_utc(text: str, instant: str) -> None:
    version = current_clients([crm("a", text)])["a"]
    assert version.updated_at == utc(instant)
    assert version.updated_at.tzinfo is UTC


def test_ids_are_compared_as_text() -> None:
    served = [
        crm(42, "2024-03-01T00:00:00Z"),
        crm("42", "2024-04-01T00:00:00Z"),
        crm("042", "2024-04-01T00:00:00Z"),
        crm(" 42", "2024-04-01T00:00:00Z"),
        crm("", "2024-04-01T00:00:00Z"),
    ]
    history = client_history(served)
    assert {key: len(versions) for key, versions in history.items()} == {
        "": 1,
        " 42": 1,
        "042": 1,
        "42": 2,
    }
    assert quarantined_clients(served) == []


def test_what_can_not_be_used_is_quarantined() -> None:
    without_id = crm("x", "2024-03-01T00:00:00Z")
    del without_id["id"]
    unusable = [
        without_id,
        crm(None, "2024-03-01T00:00:00Z"),
        crm("a", None),
        crm("a", "yesterday"),
        crm("a", ""),
        crm("a", 1709251200),
        crm("a", "0001-01-01T00:00:00+03:00"),
        crm("a", "2024-03-01T00:00:00Z", created_at="2024-02-30T00:00:00Z"),
        crm("a", "2024-03-01T00:00:00Z", plan="a\0b"),
        crm("a", "2024-03-01T00:00:00Z", segment="\ud800"),
        crm("a", "2024-03-01T00:00:00Z", country={"code": "DE"}),
    ]
    usable = crm("b", "2024-03-01T00:00:00Z", unused="a\0b")
    served = [*unusable[:5], usable, *unusable[5:]]
    assert quarantined_clients(served) == unusable
    assert list(client_history(served)) == ["b"]


# --- days -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instant", "tz", "day"),
    [
        # Moscow is UTC+3: the day of 8 December is [7 Dec 21:00, 8 Dec 21:00) UTC
        ("2024-12-07T20:59:59.999999", MOSCOW, date(2024, 12, 7)),
        ("2024-12-07T21:00:00", MOSCOW, date(2024, 12, 8)),
        ("2024-12-08T20:59:59.999999", MOSCOW, date(2024, 12, 8)),
        ("2024-12-08T21:00:00", MOSCOW, date(2024, 12, 9)),
        # Berlin, 27 October 2024, 25 hours: [26 Oct 22:00, 27 Oct 23:00) UTC
        ("2024-10-26T21:59:59.999999", BERLIN, date(2024, 10, 26)),
        ("2024-10-26T22:00:00", BERLIN, date(2024, 10, 27)),
        ("2024-10-27T22:59:59.999999", BERLIN, date(2024, 10, 27)),
        ("2024-10-27T23:00:00", BERLIN, date(2024, 10, 28)),
        # New York, 10 March 2024, 23 hours: [10 Mar 05:00, 11 Mar 04:00) UTC
        ("2024-03-10T04:59:59.999999", NEW_YORK, date(2024, 3, 9)),
        ("2024-03-10T05:00:00", NEW_YORK, date(2024, 3, 10)),
        ("2024-03-11T03:59:59.999999", NEW_YORK, date(2024, 3, 10)),
        ("2024-03-11T04:00:00", NEW_YORK, date(2024, 3, 11)),
    ],
)
def test_business_day(instant: str, tz: ZoneInfo, day: date) -> None:
    assert business_day(utc(instant), tz) == day
    assert business_day(utc(instant).replace(tzinfo=None), tz) == day
    assert business_day(utc(instant).astimezone(timezone(timedelta(hours=9))), tz) == day


@pytest.mark.parametrize(
    ("tz", "day", "end"),
    [
        (MOSCOW, date(2024, 12, 8), "2024-12-08T21:00:00"),
        (BERLIN, date(2024, 10, 27), "2024-10-27T23:00:00"),
        (BERLIN, date(2024, 3, 31), "2024-03-31T22:00:00"),
        (NEW_YORK, date(2024, 3, 10), "2024-03-11T04:00:00"),
        # the clocks skip the midnight that ends 3 November 2018
        (SAO_PAULO, date(2018, 11, 3), "2018-11-04T03:00:00"),
    ],
)
def test_attributes_are_those_valid_at_the_end_of_the_day_exclusive(
    tz: ZoneInfo, day: date, end: str
) -> None:
    last = utc(end) - timedelta(microseconds=1)
    events = [event(event_ts=last)]

    def plan(updated_at: datetime) -> str | None:
        served = [
            crm("a", "2018-01-01T00:00:00Z", plan="old"),
            crm("a", updated_at.isoformat(), plan="new"),
        ]
        row = only(client_telemetry(served, events, tz))
        assert row.ds == day
        return row.plan

    assert plan(last) == "new"
    assert plan(utc(end)) == "old"
    assert only(client_telemetry([crm("a", end)], events, tz)).plan is None


# --- deduplication --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        # the latest event_ts, before anything else, to the microsecond
        (
            event(duration_ms=999),
            event(duration_ms=1, event_ts=NOON + timedelta(microseconds=1)),
        ),
        (event(duration_ms=9, client_id="z"), event(duration_ms=10, client_id="a")),
        (event(duration_ms=None, client_id="z"), event(duration_ms=-5, client_id="a")),
        (event(client_id="a", event_type="z"), event(client_id="b", event_type="a")),
        (event(client_id=None, event_type="z"), event(client_id="", event_type="a")),
        (event(client_id=10, event_type="z"), event(client_id=9)),  # text: '10' < '9'
        (event(event_type="A", status="z"), event(event_type="a", status="a")),
        (event(event_type=None, status="z"), event(event_type="", status="a")),
        (event(status="error", session_id="z"), event(status="ok", session_id="a")),
        (event(status=None, session_id="z"), event(status="a", session_id=None)),
        (event(session_id="s1"), event(session_id="s2")),
        (event(session_id=None), event(session_id="")),
        # UTF-8 bytes: EF BD 9E < F0 9F 98 80, the other way round in UTF-16
        (event(session_id="\uff5e"), event(session_id="\U0001f600")),
    ],
)
def test_precedence_between_rows_with_one_event_id(lower: Event, higher: Event) -> None:
    pair = [{**lower, "event_id": "e"}, {**higher, "event_id": "e"}]
    for events in permutations(pair):
        kept = deduplicated(events, MOSCOW)[DAY]
        winner = {**higher, "event_id": "e", "client_id": str(higher["client_id"])}
        assert kept == [winner]


def test_an_event_id_is_unique_within_a_day_only() -> None:
    midnight = utc("2024-12-08T21:00:00")
    events = [
        event(event_id=7, event_ts=midnight - timedelta(microseconds=1)),
        event(event_id="7", event_ts=midnight - timedelta(microseconds=2)),
        event(event_id="7", event_ts=midnight),
        event(event_id="07", event_ts=midnight),
    ]
    kept = deduplicated(events, MOSCOW)
    assert {ds: [row["event_id"] for row in rows] for ds, rows in kept.items()} == {
        date(2024, 12, 8): ["7"],
        date(2024, 12, 9): ["7", "07"],
    }
    assert kept[date(2024, 12, 8)][0]["event_ts"] == utc("2024-12-08T20:59:59.999999")


def test_rows_without_an_event_id_are_never_deduplicated() -> None:
    without = {key: value for key, value in event().items() if key != "event_id"}
    events = [event(), event(), without, without, event(event_id=""), event(event_id="")]
    kept = deduplicated(events, MOSCOW)[DAY]
    assert sorted(str(row["event_id"]) for row in kept) == ["", "None", "None", "None", "None"]


def test_deduplicated_events_are_typed_and_keep_null_clients() -> None:
    raw = event(
        event_id=7,
        client_id=None,
        session_id=5,
        event_ts=NOON.replace(microsecond=1, tzinfo=None),
        event_date=date(1999, 1, 1),
    )
    assert deduplicated([raw], MOSCOW) == {
        DAY: [
            {
                "event_id": "7",
                "client_id": None,
                "event_type": "click",
                "duration_ms": 100,
                "status": "ok",
                "session_id": "5",
                "event_ts": utc("2024-12-08T12:00:00.000001"),
            }
        ]
    }


def test_events_that_can_not_be_used_are_left_out() -> None:
    assert deduplicated([event(event_ts=None), event(status="a\0b")], MOSCOW) == {}


@pytest.mark.parametrize("wrong", [{"event_ts": "2024-12-08"}, {"duration_ms": "100"}])
def test_a_type_out_of_contract_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        deduplicated([event(**wrong)], MOSCOW)


def test_the_mart_counts_the_deduplicated_events() -> None:
    events = [
        event(event_id="e", client_id="a"),
        event(event_id="e", client_id="b"),  # wins by client: 'a' has no event left
        event(event_id="f", client_id="b", duration_ms=300),
    ]
    row = only(client_telemetry([], events))
    assert (row.client_id, row.events_cnt, row.avg_latency_ms) == ("b", 2, 200.0)


# --- mart -----------------------------------------------------------------------------------------


def test_a_whole_row() -> None:
    served = [crm(42, "2024-12-01T00:00:00Z", plan="pro")]
    events = [
        event(client_id="42", duration_ms=100, session_id="s1"),
        event(client_id=42, duration_ms=200, session_id="s2", status="error"),
        event(client_id="42", duration_ms=600, session_id="s1", event_ts=utc("2024-12-08T20:00")),
    ]
    # avg (100 + 200 + 600) / 3; p95 at 0.95 * 2 = 1.9: 200 + 0.9 * 400
    assert client_telemetry(served, events) == [
        MartRow(
            ds=DAY,
            client_id="42",
            segment="smb",
            country="DE",
            plan="pro",
            events_cnt=3,
            errors_cnt=1,
            avg_latency_ms=300.0,
            p95_latency_ms=560.0,
            sessions_cnt=2,
            last_event_at=utc("2024-12-08T20:00:00"),
        )
    ]


def test_a_client_unknown_to_the_crm_has_a_row_with_null_attributes() -> None:
    row = only(client_telemetry([crm("b", "2024-01-01")], [event()]))
    assert (row.segment, row.country, row.plan, row.events_cnt) == (None, None, None, 1)


def test_each_day_has_the_attributes_of_its_own_end() -> None:
    served = [
        crm("a", "2024-12-10T00:00:00Z", plan="later", created_at="2024-12-06T21:00:00Z"),
        crm("a", "2024-12-08T20:00:00Z", plan="sooner", created_at="2024-12-06T21:00:00Z"),
    ]
    events = [event(event_ts=NOON + timedelta(days=shift)) for shift in range(-2, 3)]
    # created at 7 December 00:00 in Moscow, the end of 6 December
    assert [(row.ds.day, row.plan) for row in client_telemetry(served, events)] == [
        (6, None),
        (7, "sooner"),
        (8, "sooner"),
        (9, "sooner"),
        (10, "later"),
    ]


def test_only_exactly_error_is_an_error_and_its_latency_counts() -> None:
    statuses = ["error", "Error", "ERROR", " error", "error ", "", None, "ok"]
    events = [event(status=status, duration_ms=0) for status in statuses[1:]]
    row = only(client_telemetry([], [event(status="error", duration_ms=80), *events]))
    assert (row.events_cnt, row.errors_cnt, row.avg_latency_ms) == (8, 1, 10.0)


def test_null_clients_are_left_out_and_an_empty_one_is_a_client() -> None:
    served = [crm("", "2024-01-01", plan="of nobody")]
    row = only(client_telemetry(served, [event(client_id=None), event(client_id="")]))
    assert (row.client_id, row.plan, row.events_cnt) == ("", "of nobody", 1)
    assert client_telemetry(served, [event(client_id=None)]) == []


def test_sessions_are_distinct_non_null_ids() -> None:
    sessions = ["s1", "s1", "S1", "", None, None, 5, "5"]
    row = only(client_telemetry([], [event(session_id=session) for session in sessions]))
    assert (row.events_cnt, row.sessions_cnt) == (8, 4)
    assert only(client_telemetry([], [event(session_id=None)])).sessions_cnt == 0


def test_null_durations_are_events_and_no_latencies() -> None:
    assert latencies(None, None) == (None, None)
    assert latencies(None, 10, None, 20) == (15.0, 19.5)
    events = [event(duration_ms=None, event_ts=NOON + timedelta(hours=1)), event()]
    row = only(client_telemetry([], events))
    assert (row.events_cnt, row.last_event_at) == (2, utc("2024-12-08T13:00:00"))


def test_latencies() -> None:
    assert latencies(7) == (7.0, 7.0)
    assert latencies(0) == (0.0, 0.0)
    assert latencies(20, 10) == (15.0, 19.5)  # 10 + 0.95 * 10
    assert latencies(100, 3, 2, 1) == (26.5, 85.45)  # 0.95 * 3 = 2.85: 3 + 0.85 * 97
    assert latencies(*range(20, 0, -1)) == (10.5, 19.05)  # 0.95 * 19 = 18.05: 19 + 0.05
    assert latencies(*range(1, 22)) == (11.0, 20.0)  # 0.95 * 20 = 19, the 20th of 21
    assert latencies(-100, 50) == (-25.0, 42.5)  # -100 + 0.95 * 150
    assert latencies(5, 5, 5) == (5.0, 5.0)


def test_latencies_are_exact() -> None:
    assert latencies(Decimal("0.1"), Decimal("0.2")) == (0.15, 0.195)
    assert latencies(1e16, 1.0, -1e16)[0] == 1 / 3
    assert latencies(1, 1, 2)[0] == 4 / 3


def test_rows_are_sorted_by_day_and_by_the_bytes_of_the_client() -> None:
    # 5A, 61, C3 A9, EF BD 9E, F0 9F 98 80
    clients = ["Z", "a", "\u00e9", "\uff5e", "\U0001f600"]
    later = NOON + timedelta(days=1)
    events = [event(client_id="Z", event_ts=later)]
    events += [event(client_id=client) for client in reversed(clients)]
    rows = client_telemetry([], events)
    assert [(row.ds.day, row.client_id) for row in rows] == [
        *((8, client) for client in clients),
        (9, "Z"),
    ]


def test_days_restrict_the_answer() -> None:
    events = [event(event_ts=NOON + timedelta(days=shift)) for shift in range(3)]
    days = [date(2024, 12, 9), date(2024, 12, 20)]
    assert [row.ds for row in client_telemetry([], events, days=days)] == [date(2024, 12, 9)]
    assert client_telemetry([], events, days=[]) == []
    assert len(client_telemetry([], events)) == 3


def test_the_time_zone_cuts_the_mart() -> None:
    # midnight in Berlin, 25 hours apart
    events = [event(event_ts=utc(text)) for text in ("2024-10-26T22:00", "2024-10-27T22:59:59")]
    assert [row.events_cnt for row in client_telemetry([], events, BERLIN)] == [2]
    rows = client_telemetry([], events)
    assert [(row.ds.day, row.events_cnt) for row in rows] == [(27, 1), (28, 1)]


# --- comparison -----------------------------------------------------------------------------------

ROW = MartRow(DAY, "a", "smb", None, "pro", 3, 1, 300.0, None, 2, NOON)
OTHER = replace(ROW, client_id="b")


def table(*rows: MartRow) -> list[dict[str, object]]:
    return [asdict(row) for row in rows]


def test_equal_tables_have_no_differences() -> None:
    assert differences([], []) == []
    assert differences([ROW, OTHER], table(OTHER, ROW)) == []


def test_forms_of_the_same_values_are_no_differences() -> None:
    forms: list[dict[str, object]] = [
        {"loaded_at": NOON},
        {"events_cnt": Decimal("3"), "avg_latency_ms": Decimal("300")},
        {"avg_latency_ms": 300},
        {"avg_latency_ms": 300.0000001},
        {"last_event_at": NOON.replace(tzinfo=None)},
        {"last_event_at": NOON.astimezone(MOSCOW)},
    ]
    for form in forms:
        assert differences([ROW], [asdict(ROW) | form]) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("segment", "SMB"),
        ("segment", None),
        ("country", ""),
        ("plan", "pro "),
        ("events_cnt", 4),
        ("errors_cnt", None),
        ("avg_latency_ms", 300.000001),
        ("avg_latency_ms", None),
        ("avg_latency_ms", float("nan")),
        ("avg_latency_ms", "300.0"),
        ("p95_latency_ms", 0.0),
        ("sessions_cnt", 2.5),
        ("last_event_at", NOON + timedelta(microseconds=1)),
        ("last_event_at", datetime(2024, 12, 8, 12, tzinfo=MOSCOW)),
        ("last_event_at", None),
    ],
)
def test_a_wrong_cell_is_found(column: str, value: object) -> None:
    actual = table(OTHER, ROW)
    actual[1][column] = value
    wanted = asdict(ROW)[column]
    assert differences([ROW, OTHER], actual) == [
        f"2024-12-08 'a': {column} is {value!r}, expected {wanted!r}"
    ]


def test_a_missing_row_is_found() -> None:
    assert differences([ROW, OTHER], table(ROW)) == [
        f"2024-12-08 'b': row is missing, expected {OTHER}"
    ]


def test_an_extra_row_is_found() -> None:
    lines = differences([ROW], table(ROW, OTHER))
    assert len(lines) == 1
    assert lines[0].startswith("2024-12-08 'b': row is extra: {'ds': ")


def test_a_duplicate_row_is_found() -> None:
    assert differences([ROW], table(ROW, ROW)) == ["2024-12-08 'a': duplicate key, 2 rows"]
    wrong = replace(ROW, events_cnt=9)
    assert differences([ROW], table(ROW, wrong)) == [
        "2024-12-08 'a': events_cnt is 9, expected 3",
        "2024-12-08 'a': duplicate key, 2 rows",
    ]


def test_a_key_of_another_type_is_another_key() -> None:
    row = replace(ROW, client_id="42")
    lines = differences([row], [asdict(row) | {"client_id": 42}])
    assert [line.split(":")[0] for line in lines] == ["2024-12-08 '42'", "2024-12-08 42"]


def test_a_missing_column_is_found_once() -> None:
    actual = table(ROW, OTHER)
    for row in actual:
        del row["plan"]
    assert differences([ROW, OTHER], actual) == ["column 'plan' is missing in 2 of 2 actual rows"]
    del actual[0]["client_id"]
    assert differences([ROW, OTHER], actual) == [
        "column 'client_id' is missing in 1 of 2 actual rows",
        "column 'plan' is missing in 2 of 2 actual rows",
    ]


def test_the_lines_are_cut_at_the_limit() -> None:
    rows = [replace(ROW, client_id=str(number)) for number in range(25)]
    lines = differences(rows, [])
    assert (len(lines), lines[-1]) == (21, "... and 5 more")
    assert len(differences(rows[:20], [])) == 20
    assert differences(rows, [], limit=1)[1:] == ["... and 24 more"]


def test_expected_rows_that_repeat_a_key_are_an_error() -> None:
    with pytest.raises(ValueError, match="repeat a key"):
        differences([ROW, ROW], [])
