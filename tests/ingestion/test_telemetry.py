"""Telemetry from one PostgreSQL to the other: types, days, what changed, what is set aside, memory."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ingestion.errors import SourceError
from ingestion.sources.telemetry import event_queries
from sandbox.telemetry import insert_events
from tests.ingestion.scene import (
    DAY,
    DEC,
    arrive,
    at,
    at_source,
    december,
    event,
    having,
    noons,
    quarantine,
    recreate_source,
    refused,
    rows_by_day,
    telemetry,
)
from tests.support.vitrina import Vitrina

COLUMNS = ("event_id", "client_id", "event_type", "duration_ms", "status", "session_id", "event_ts")
LANDED = "select * from raw.telemetry_events order by event_ts, event_id"


def landed(vitrina: Vitrina) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in COLUMNS) for row in vitrina.query(LANDED)]


# --- shapes of the source's table -------------------------------------------------------------------

UUID = "0b9d8f6e-1111-4222-8333-444455556666"
AS_USUAL = (UUID, "c-1", "view", 10.0, "ok", "s-1", at("2024-12-05T12:00"))


@pytest.mark.parametrize(
    "types",
    [
        {},
        {"event_id": "uuid"},
        {"duration_ms": "bigint"},
        {"duration_ms": "real"},
        {"duration_ms": "numeric(12, 3)"},
        {"duration_ms": "double precision"},
        {"client_id": "varchar(20)", "session_id": "char(3)"},
        {"event_ts": "timestamp"},
        {"event_ts": "timestamp(3)"},
        {"event_ts": "timestamptz(0)"},
        {"status": "event_status"},
        {"duration_ms": "milliseconds"},
        {"extra": "jsonb", "event_date": "text"},
    ],
    ids=str,
)
def test_columns_of_other_types(vitrina: Vitrina, types: dict[str, str]) -> None:
    at_source(
        vitrina,
        "create type event_status as enum ('ok', 'error')",
        "create domain milliseconds as integer",
    )
    recreate_source(vitrina, types=types)
    arrive(vitrina, [event("2024-12-05T12:00:00", UUID)])
    telemetry(vitrina, DEC[5])
    assert landed(vitrina) == [AS_USUAL]


def test_a_source_without_event_id(vitrina: Vitrina) -> None:
    recreate_source(vitrina, event_id=False)
    arrive(vitrina, noons(5, 5))  # two events that can't be told apart are two
    telemetry(vitrina, DEC[5])
    assert landed(vitrina) == [(None, *AS_USUAL[1:])] * 2


def test_a_view_serves(vitrina: Vitrina) -> None:
    at_source(
        vitrina,
        "alter table telemetry_events rename to stored",
        "create view telemetry_events as select session_id, 1 as other, event_ts, status,"
        " duration_ms / 2.0 as duration_ms, event_type, upper(client_id) as client_id from stored",
    )
    insert_events(vitrina.outside.telemetry_url, noons(5), table="stored")
    telemetry(vitrina, DEC[5])
    assert landed(vitrina) == [(None, "C-1", "view", 5.0, "ok", "s-1", at("2024-12-05T12:00"))]


def test_nulls_and_hostile_text(vitrina: Vitrina) -> None:
    hostile = '\\N "quoted", \\ \t\r\n ünï 测试 \x7f'
    nothing = dict.fromkeys(("client_id", "event_type", "duration_ms", "status", "session_id"))
    arrive(vitrina, [event("2024-12-05T12:00:00", None, **nothing)])
    arrive(vitrina, [event("2024-12-05T12:00:01", "", client_id=hostile, duration_ms=-7)])
    telemetry(vitrina, DEC[5])
    assert landed(vitrina) == [
        (None, None, None, None, None, None, at("2024-12-05T12:00")),
        ("", hostile, "view", -7.0, "ok", "s-1", at("2024-12-05T12:00:01")),
    ]


ALL = dict.fromkeys(COLUMNS, "text") | {
    "duration_ms": "integer",
    "event_ts": "timestamp with time zone",
}


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "event_id"])
def test_a_missing_column_is_named(name: str) -> None:
    with pytest.raises(SourceError, match=f"has no {name}; it has"):
        event_queries({other: kind for other, kind in ALL.items() if other != name})


@pytest.mark.parametrize(
    ("name", "kind"), [("event_ts", "date"), ("event_ts", "bigint"), ("duration_ms", "text")]
)
def test_a_wrong_type_is_named(vitrina: Vitrina, name: str, kind: str) -> None:
    at_source(vitrina, f"alter table telemetry_events drop column {name}")
    at_source(vitrina, f"alter table telemetry_events add column {name} {kind}")
    said = refused(vitrina, vitrina.run("telemetry", "--date", "2024-12-05"))
    assert f"telemetry_events.{name} is {kind}" in said


def test_no_table(vitrina: Vitrina) -> None:
    at_source(vitrina, "drop table telemetry_events")
    said = refused(vitrina, vitrina.run("telemetry", "--date", "2024-12-05"))
    assert "no table telemetry_events" in said


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("postgresql://vitrina:pa%2Fss-w0rd@127.0.0.1:9/db", 1),  # nobody listens
        ("postgresql://vitrina:pa%2Fss-w0rd@{server}", 1),  # a wrong password
        ("postgresql://vitrina:pa/ss-w0rd@{server}", 2),  # not percent-encoded
        ("mysql://vitrina:pa%2Fss-w0rd@{server}", 2),
        ("pa/ss-w0rd", 2),
    ],
)
def test_an_unreachable_database_does_not_show_its_password(
    vitrina: Vitrina, url: str, status: int
) -> None:
    server = vitrina.outside.telemetry_url.partition("@")[2]
    other = having(vitrina, TELEMETRY_DB_URL=url.format(server=server))
    said = refused(vitrina, other.run("telemetry", "--date", "2024-12-05"), status)
    assert "telemetry database" in said or "TELEMETRY_DB_URL" in said
    for piece in ("ss-w0rd", "'pa", "pa%2F"):
        assert piece not in said


# --- what is set aside ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp"])
def test_events_of_no_time_are_kept_once(vitrina: Vitrina, kind: str) -> None:
    recreate_source(vitrina, types={"event_ts": kind})
    arrive(vitrina, [*noons(5), event(None, "a"), event(None, "b"), event(None, "b")])
    stamps = ("infinity", "-infinity", "0044-03-15 12:00:00 BC", "12024-01-01")
    for stamp in stamps:
        at_source(vitrina, f"insert into telemetry_events (event_ts) values ('{stamp}')")
    for _ in range(2):
        answer = telemetry(vitrina, DEC[5])
        assert (answer["rows_landed"], answer["quarantined"]) == (1, 7)
    kept = quarantine(vitrina)
    assert sorted(row["reason"] for row in kept) == [
        "event_ts is in no window: before the year 1 or after 9999",
        "event_ts is in no window: before the year 1 or after 9999",
        "event_ts is infinite",
        "event_ts is infinite",
        "event_ts is null",
        "event_ts is null",
        "event_ts is null",
    ]
    assert {row["source"] for row in kept} == {"telemetry"}
    ids = [json.loads(row["payload"])["event_id"] for row in kept]
    assert sorted(filter(None, ids)) == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("double precision", ("NaN", "Infinity", "-Infinity")),
        ("real", ("NaN", "Infinity", "-Infinity")),
        ("numeric", ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400")),
    ],
)
def test_durations_that_are_no_numbers(vitrina: Vitrina, kind: str, bad: tuple[str, ...]) -> None:
    recreate_source(vitrina, types={"duration_ms": kind})
    for value in (*bad, "0", "-2.5"):
        at_source(
            vitrina,
            "insert into telemetry_events (duration_ms, event_ts)"
            f" values ('{value}', '2024-12-05 12:00+00')",
        )
    at_source(vitrina, "insert into telemetry_events (event_ts) values ('2024-12-05 12:00+00')")
    for day in (DEC[5], DEC[6]):  # in the look-back of the second: found again, kept once
        answer = telemetry(vitrina, day)
        assert (answer["rows_landed"], answer["quarantined"]) == (3, len(bad))
    assert len(quarantine(vitrina)) == len(bad)
    assert {row[3] for row in landed(vitrina)} == {0.0, -2.5, None}
    assert telemetry(vitrina, DEC[20])["quarantined"] == 0  # of another window


@pytest.fixture
def ascii_vitrina(vitrina: Vitrina) -> Iterator[Vitrina]:
    """A telemetry database that checks no encoding."""
    server, name = vitrina.outside.postgres, f"{vitrina.outside.telemetry}_ascii"
    with psycopg.connect(vitrina.outside.telemetry_url, autocommit=True) as connection:
        connection.execute(
            f"create database {name} encoding 'SQL_ASCII' locale 'C' template template0".encode()
        )
    try:
        yield having(vitrina, TELEMETRY_DB_URL=server.url(name))
    finally:
        server.drop_database(name)


def test_a_source_that_checks_no_encoding(ascii_vitrina: Vitrina) -> None:
    bad = [r"caf\351", r"\355\240\200", r"\300\200", r"\364\220\200\200", r"\303"]
    good = {r"caf\303\251": "café", r"\360\237\230\200": "😀", r"\355\237\277": "\ud7ff", "a": "a"}
    texts = ", ".join(f"(e'{text}', '2024-12-05 12:00+00'::timestamptz)" for text in [*bad, *good])
    with psycopg.connect(ascii_vitrina.settings["TELEMETRY_DB_URL"]) as connection:
        connection.execute(
            f"create table telemetry_events as select null as event_id, text as client_id,"
            f" 'view' as event_type, 1 as duration_ms, 'ok' as status, null as session_id, event_ts"
            f" from (values {texts}) as v (text, event_ts)".encode()
        )
    for _ in range(2):
        answer = telemetry(ascii_vitrina, DEC[5])
        assert (answer["rows_landed"], answer["quarantined"]) == (4, 5)
    assert {row[1] for row in landed(ascii_vitrina)} == set(good.values())
    kept = quarantine(ascii_vitrina)
    assert [row["encoding"] for row in kept] == ["base64"] * 5
    assert not any("\n" in row["payload"] for row in kept)
    payloads = [base64.b64decode(row["payload"], validate=True) for row in kept]
    assert sum(b"caf\xe9" in payload for payload in payloads) == 1
    assert sum(b"\xed\xa0\x80" in payload for payload in payloads) == 1


# --- days -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        ("Europe/Moscow", "2024-12-05", "2024-12-04T21:00:00", 24),
        ("America/New_York", "2024-03-10", "2024-03-10T05:00:00", 23),
        ("America/New_York", "2024-11-03", "2024-11-03T04:00:00", 25),
        ("Asia/Kolkata", "2024-12-05", "2024-12-04T18:30:00", 24),
    ],
)
@pytest.mark.parametrize("naive", [False, True])
def test_mistake_t10_days_are_cut_in_the_business_zone(
    vitrina: Vitrina, zone: str, day: str, start: str, hours: int, naive: bool
) -> None:
    """To the microsecond, on days of 23, 24 and 25 hours, whatever the source's zone and event_date."""
    recreate_source(vitrina, naive=naive)
    begin = at(start)
    microsecond, hour = DAY / 86_400_000_000, DAY / 24
    inside = [begin + n * hour for n in range(hours)] + [begin + hours * hour - microsecond]
    outside = [begin - microsecond, begin + hours * hour]
    instants = [*inside, *outside]
    arrive(vitrina, [event(str(t), event_date=t.date() - 5 * DAY) for t in instants])
    local = having(vitrina, BUSINESS_TIMEZONE=zone, TELEMETRY_LOOKBACK_DAYS="0")
    assert local.ingest("telemetry", "--date", day)["rows_landed"] == hours + 1
    assert [row[6] for row in landed(vitrina)] == inside
    assert rows_by_day(vitrina) == {day: hours + 1}


def test_mistake_t13_late_events_within_the_look_back_are_landed(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(3, 4, 5, 6, 7))
    answer = telemetry(vitrina, DEC[7])
    assert rows_by_day(vitrina) == dict.fromkeys(december(4, 5, 6, 7), 1)
    assert answer["days_changed"] == december(4, 5, 6, 7)
    arrive(vitrina, [event(f"2024-12-0{n}T13:00:00", f"late-{n}") for n in (3, 4, 5)])
    # The 4th is now older than the look-back: it needs a window of its own.
    assert telemetry(vitrina, DEC[8])["days_changed"] == december(5)
    assert telemetry(vitrina, DEC[4])["days_changed"] == december(3, 4)
    assert rows_by_day(vitrina) == dict(zip(december(3, 4, 5, 6, 7), (2, 2, 2, 1, 1), strict=True))


def test_look_back_is_a_setting(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(3, 4, 5, 6, 7))
    answer = telemetry(having(vitrina, TELEMETRY_LOOKBACK_DAYS="1"), DEC[7])
    assert answer["days_changed"] == december(6, 7)


def test_mistake_t03_landing_again_replaces_and_never_doubles(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(4, 5, 5, 6))
    first = telemetry(vitrina, DEC[4], DEC[7])
    again = telemetry(vitrina, DEC[4], DEC[7])
    assert (first["rows_landed"], again["rows_landed"]) == (4, 4)
    assert (first["days_changed"], again["days_changed"]) == (december(4, 5, 6), [])
    assert rows_by_day(vitrina) == dict(zip(december(4, 5, 6), (1, 2, 1), strict=True))


def test_mistake_t11_an_emptied_day_becomes_empty(vitrina: Vitrina) -> None:
    arrive(vitrina, noons(5, 6))
    telemetry(vitrina, DEC[6])
    at_source(vitrina, "delete from telemetry_events where event_id = 'e-5'")
    assert telemetry(vitrina, DEC[6])["days_changed"] == december(5)
    assert rows_by_day(vitrina) == {str(DEC[6]): 1}
    assert telemetry(vitrina, DEC[6])["days_changed"] == []


@pytest.mark.parametrize(
    ("change", "days"),
    [
        ("update telemetry_events set event_date = '2020-01-01'", []),
        ("update telemetry_events set status = 'ok' where event_id = 'e-5'", []),
        ("cluster telemetry_events using backwards", []),
        ("update telemetry_events set status = 'error' where event_id = 'e-5'", [5]),
        ("update telemetry_events set status = null where event_id = 'e-6'", [6]),
        (
            "update telemetry_events set event_ts = '2024-12-05 13:00+00' where event_id = 'e-6'",
            [5, 6],
        ),
        # As many rows, and pairs of equal ones before and after.
        ("update telemetry_events set client_id = 'other' where event_id = 'pair'", [5]),
    ],
)
def test_a_day_changes_with_its_rows_and_not_with_their_order(
    vitrina: Vitrina, change: str, days: list[int]
) -> None:
    pair = event("2024-12-05T09:00:00", "pair")
    early = [event(f"2024-12-0{day}T0{n}:00:00", f"{day}-{n}") for day in (5, 6) for n in range(5)]
    arrive(vitrina, [*early, *noons(5, 6), pair, pair])
    telemetry(vitrina, DEC[6])
    at_source(
        vitrina, "create index backwards on telemetry_events (event_id, event_ts desc)", change
    )
    before = sorted(map(str, landed(vitrina)))
    assert telemetry(vitrina, DEC[6])["days_changed"] == december(*days)
    assert (sorted(map(str, landed(vitrina))) != before) == bool(days)
    assert telemetry(vitrina, DEC[6])["days_changed"] == []


# --- memory -----------------------------------------------------------------------------------------

# Not ru_maxrss: across fork and exec it keeps the peak of the parent, which is larger.
MEASURE = """
import re, sys
from pathlib import Path
from ingestion.cli import main
status = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_day(vitrina: Vitrina) -> None:
    for day, rows in ((5, 50_000), (6, 500_000)):
        at_source(
            vitrina,
            "insert into telemetry_events select md5(n::text), 'c-' || n % 400, 'view', n % 1000,"
            f" 'ok', 's-' || n % 5000, '2024-12-{day:02d} 00:00+00'::timestamptz"
            f" + n * interval '10 ms', null from generate_series(1, {rows}) as n",
        )
    small = having(vitrina, TELEMETRY_LOOKBACK_DAYS="0")
    peaks = []
    for date, rows in ((DEC[5], 50_000), (DEC[6], 500_000)):
        process = small.process("-c", MEASURE, "telemetry", "--date", str(date))
        output = process.communicate()[0].decode().splitlines()
        assert process.returncode == 0, output
        assert json.loads(output[-2])["rows_landed"] == rows
        peaks.append(int(output[-1]) / 1024)
    assert peaks[1] - peaks[0] < 15, peaks  # MB
