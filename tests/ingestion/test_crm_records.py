"""What becomes of one record of the CRM, and which days a set of versions changes: no server needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.days import day_start
from ingestion.http import Answer
from ingestion.sinks import Version
from ingestion.sources.crm import NO_JSON, NOT_STORABLE, changed_days, client_row, parse_instant
from tests.ingestion.scene import DAY, DEC, at, client

MOSCOW = ZoneInfo("Europe/Moscow")


def used(record: object) -> dict[str, Any]:
    """The columns of a usable record."""
    row = client_row(record)
    assert isinstance(row, tuple), row
    names = ("id", "segment", "country", "plan", "created_at", "updated_at", "hash", "payload")
    return dict(zip(names, row, strict=True))


def test_a_record() -> None:
    record = client("c-1", "2024-12-05T10:00:00Z", created_at="2024-01-01T00:00:00Z", note="x")
    row = used(record)
    assert list(row.values())[:6] == [
        "c-1",
        "smb",
        "RU",
        "free",
        at("2024-01-01"),
        at("2024-12-05T10:00"),
    ]
    assert json.loads(row["payload"]) == record


def test_mistake_t07_the_key_is_the_content_whatever_its_order() -> None:
    record = client()
    assert used(record)["hash"] == used(dict(reversed(record.items())))["hash"]
    for other in ({"plan": "pro"}, {"plan": None}, {"plan": ""}, {"note": 1}, {"country": "ru"}):
        assert used({**record, **other})["hash"] != used(record)["hash"]


def test_null_updated_at_is_created_at() -> None:
    row = used(client("c-1", None, created_at="2024-12-01T00:00:00Z"))
    assert row["updated_at"] == row["created_at"] == at("2024-12-01")
    assert used(client("c-1", "2024-12-05T10:00:00Z"))["created_at"] is None


@pytest.mark.parametrize(
    ("client_id", "text"), [(42, "42"), (42.5, "42.5"), ("", ""), (" a ", " a "), (True, "true")]
)
def test_ids_as_text(client_id: object, text: str) -> None:
    assert used(client(client_id))["id"] == text


def test_attributes_as_text() -> None:
    row = used(client(segment=None, country="", plan=7))
    assert (row["segment"], row["country"], row["plan"]) == (None, "", "7")
    bare = used({"id": "c", "updated_at": "2024-12-05"})
    assert (bare["segment"], bare["country"], bare["plan"]) == (None, None, None)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "no object"),
        (["c-1"], "no object"),
        (client(None), "no id"),
        ({"updated_at": "2024-12-05"}, "no id"),
        (client(updated_at=None), "neither updated_at nor created_at"),
        (client(updated_at="yesterday"), "updated_at is no instant"),
        (client(updated_at=""), "updated_at is no instant"),
        ({**client(), "updated_at": 1733392800}, "updated_at is no instant"),
        (client(created_at="0000-00-00"), "created_at is no instant"),
        (client(updated_at="9999-12-31T23:59:59-01:00"), "updated_at is no instant"),
        (client(updated_at="0001-01-01T00:00:00+01:00"), "updated_at is no instant"),
        (client({"n": 1}), "id is neither text nor number"),
        (client(plan=["pro"]), "plan is neither text nor number"),
        (client("a\0b"), NOT_STORABLE),
        (client(segment="\0"), NOT_STORABLE),
        (client(segment="é\0"), NOT_STORABLE),
        (client(country="\ud800"), NOT_STORABLE),
        (client(plan="caf\udce9"), NOT_STORABLE),
        (client(note=float("nan")), NO_JSON),
        (client(plan=float("inf")), NO_JSON),
    ],
)
def test_what_cannot_be_used(record: object, reason: str) -> None:
    assert client_row(record) == reason


def test_unused_fields_may_hold_anything() -> None:
    row = used(client(note="\0 \ud800 \udcff", deep={"a": [1, {"b": None}]}))
    assert row["payload"].isascii()
    assert json.loads(row["payload"])["note"] == "\0 \ud800 \udcff"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-12-08T00:00:00Z", "2024-12-08T00:00:00"),
        ("2024-12-08T03:00:00+03:00", "2024-12-08T00:00:00"),
        ("2024-12-07T19:00:00-05:00", "2024-12-08T00:00:00"),
        ("2024-12-08T00:00:00", "2024-12-08T00:00:00"),
        ("2024-12-08 00:00:00.123456", "2024-12-08T00:00:00.123456"),
        ("2024-12-08T00:00:00.5Z", "2024-12-08T00:00:00.500000"),
        (" 2024-12-08 ", "2024-12-08T00:00:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00"),
    ],
)
def test_mistake_t10_instants_are_utc_unless_they_say_otherwise(text: str, instant: str) -> None:
    assert parse_instant(text) == at(instant)


def test_records_as_they_were_served() -> None:
    """Byte for byte, whatever spelling, order, escapes and bytes the page has."""
    records = [
        b'{ "id":1,"a" :"[]{},\\"" }',
        b'{"id":"caf\xe9"}',
        b'"\\udce9"',
        b"null",
        b"1" * 5_000,
        b'[[], {"clients": [7]}]',
    ]
    page = b'\n{"x": [1, [2]], "clients" : [ ' + b" ,\t".join(records) + b' ] ,"next":null}'
    text = page.decode("utf-8", errors="surrogateescape")
    assert Answer(None, text, None).items("clients") == records
    assert Answer(None, '{"clients": []}', None).items("clients") == []
    # As for the decoder: of two members with one name the later one counts.
    assert Answer(None, '{"clients": [1], "clients": [2]}', None).items("clients") == [b"2"]


# --- changed days ---------------------------------------------------------------------------------


def version(
    since: str, served: int, before: int | None = None, created: str | None = None, of: str = "c"
) -> Version:
    return Version(of, at(since), at(created) if created else None, served, before)


def changed(*versions: Version) -> list[tuple[date, date | None]]:
    return list(changed_days(versions, MOSCOW).ranges)


def test_nothing_changes_nothing() -> None:
    assert changed() == []
    assert changed(version("2024-12-03", 1, 1), version("2024-12-07", 2, 2)) == []


def test_a_new_client_from_the_lesser_of_its_instants_on() -> None:
    assert changed(version("2024-12-05T10:00", 1)) == [(DEC[5], None)]
    assert changed(version("2024-12-05T10:00", 1, created="2024-12-02")) == [(DEC[2], None)]
    assert changed(version("2024-12-05T10:00", 1, created="2024-12-09")) == [(DEC[5], None)]


def test_a_change_at_the_day_s_very_end() -> None:
    old = version("2024-12-01", 1, 1)
    assert changed(old, version("2024-12-06T20:59:59.999999", 2)) == [(DEC[6], None)]
    # Midnight in Moscow: at the end of the 6th, which it is not in, the old one holds.
    assert changed(old, version("2024-12-06T21:00", 2)) == [(DEC[7], None)]


def test_mistake_t06_an_older_version_that_arrives_late_changes_the_days_up_to_the_next() -> None:
    early, late = version("2024-12-03T10:00", 1, 1), version("2024-12-07T10:00", 2, 2)
    assert changed(early, version("2024-12-05T10:00", 3), late) == [(DEC[5], DEC[7])]
    assert changed(early, version("2024-12-07T09:00", 3), late) == []  # outdone the same day


def test_a_new_earliest_version() -> None:
    held = version("2024-12-06T10:00", 1, 1)
    older = version("2024-12-04T10:00", 2, created="2024-12-03T10:00")
    assert changed(older, held) == [(DEC[3], DEC[6])]
    # The one that was the earliest had been valid from its creation on: also days it loses change.
    held = version("2024-12-06T10:00", 1, 1, created="2024-12-02T10:00")
    assert changed(version("2024-12-04T10:00", 2), held) == [(DEC[2], DEC[6])]


def test_mistake_t07_of_equal_instants_the_one_served_last_holds() -> None:
    day, following = "2024-12-05T10:00", version("2024-12-08T10:00", 9, 9)
    assert changed(version(day, 1, 1), version(day, 2), following) == [(DEC[5], DEC[8])]
    assert changed(version(day, 2, 2), version(day, 3, 1)) == [(DEC[5], None)]  # A, B, A


def test_clients_do_not_mix() -> None:
    old = version("2024-12-03T10:00", 1, 1, of="a")
    assert changed(old, version("2024-12-05T10:00", 2, of="b")) == [(DEC[5], None)]


def test_the_ends_of_the_calendar() -> None:
    assert changed(version("9999-12-31T23:59:59", 1)) == [(date.max, None)]
    new_york = changed_days([version("0001-01-01T00:00", 1)], ZoneInfo("America/New_York"))
    assert new_york.ranges == ((date.min, None),)


HOURS = st.integers(0, 6 * 24)


@st.composite
def some_versions(draw: st.DrawFn) -> list[Version]:
    """Versions of a client, some there before; numbers as the sink gives them."""
    count = draw(st.integers(1, 6))
    instants = sorted(draw(st.lists(HOURS, min_size=count, max_size=count)))
    born = draw(st.lists(st.one_of(st.none(), HOURS), min_size=count, max_size=count))
    first = draw(st.permutations(range(1, count + 1)))
    states = draw(st.lists(st.sampled_from(["kept", "new", "renumbered"]), min_size=count))
    made = []
    start = at("2024-12-02")
    for hours, created, number, state in zip(instants, born, first, states, strict=False):
        made.append(
            Version(
                entity="c",
                since=start + timedelta(hours=hours),
                created=None if created is None else start + timedelta(hours=created),
                served=number if state == "kept" else number + 100,
                served_before=None if state == "new" else number,
            )
        )
    return made


def holder(versions: Iterable[tuple[Version, int]], day: date) -> Version | None:
    """The version that holds at the end of a day, by the words of the contract."""
    ranked = sorted(versions, key=lambda pair: (pair[0].since, pair[1]))
    if not ranked:
        return None
    end = day_start(day + DAY, MOSCOW)
    holding = [v for v, _ in ranked if v.since < end]
    if holding:
        return holding[-1]
    first = [v for v, _ in ranked if v.since == ranked[0][0].since][-1]
    return first if first.created is not None and first.created < end else None


@given(some_versions())
def test_changed_days_are_those_with_another_holder(versions: Sequence[Version]) -> None:
    before = [(v, v.served_before) for v in versions if v.served_before is not None]
    after = [(v, v.served) for v in versions]
    days = [DEC[1] + n * DAY for n in range(12)]
    expected = [day for day in days if holder(before, day) != holder(after, day)]
    marked = changed_days(versions, MOSCOW)
    # A renumbered version that held before and holds still is marked too; the sink makes none.
    if not any(v.served_before not in (None, v.served) for v in versions):
        assert list(marked.among(days)) == expected
    assert set(expected) <= set(marked.among(days))
