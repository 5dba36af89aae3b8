"""The made-up social app: the same for a seed, alive, and with every oddity it promises."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from sandbox.clickhouse import ClickhouseServer
from sandbox.feed import FeedServer
from sandbox.social import SocialApp

MONDAY = date(2024, 12, 2)
APP = SocialApp(seed=3, start=MONDAY, days=14, users=200)


def day(number: int) -> date:
    return MONDAY + timedelta(days=number)


@pytest.fixture(scope="module")
def actions() -> list[dict[str, Any]]:
    return list(APP.all_actions())


@pytest.fixture(scope="module")
def messages() -> list[dict[str, Any]]:
    return list(APP.all_messages())


def test_a_seed_is_a_world() -> None:
    again = SocialApp(seed=3, start=MONDAY, days=14, users=200)
    assert again.actions(day(3)) == APP.actions(day(3))
    assert again.messages(day(3)) == APP.messages(day(3))
    assert replace(APP, seed=4).actions(day(3)) != APP.actions(day(3))


def test_rows_lie_on_their_day_in_whole_seconds() -> None:
    for row in [*APP.actions(day(2)), *APP.messages(day(2))]:
        assert row["time"].tzinfo is UTC
        assert row["time"].microsecond == 0
        assert row["time"].astimezone(APP.zone).date() == day(2)


def test_it_grows_most_on_the_days_of_a_campaign() -> None:
    coming = [len(APP.present(day(n))) - len(APP.present(day(n - 1))) for n in range(1, 14)]
    assert all(coming)
    assert [number for number, new in enumerate(coming, 1) if new > 10] == [4, 9]


def test_weekends_are_quiet_and_evenings_are_not(actions: list[dict[str, Any]]) -> None:
    days = Counter(row["time"].astimezone(APP.zone).weekday() for row in actions)
    assert max(days[5], days[6]) < 0.8 * min(days[n] for n in range(5))
    hours = Counter(row["time"].astimezone(APP.zone).hour for row in actions)
    assert hours[20] > 10 * hours[3]


def test_some_only_read_some_only_write_and_some_only_receive(
    actions: list[dict[str, Any]], messages: list[dict[str, Any]]
) -> None:
    read = {row["user_id"] for row in actions}
    wrote = {row["user_id"] for row in messages}
    received = {row["receiver_id"] for row in messages if row["receiver_id"]}
    assert read - wrote
    assert wrote - read
    assert received - read - wrote
    attributes = {user.id: user.attributes["os"] for user in APP.everybody}
    pairs = {(attributes[r["user_id"]], attributes.get(r["receiver_id"])) for r in messages}
    assert {("iOS", "Android"), ("Android", "iOS")} <= pairs


def test_every_oddity_is_there_each_day() -> None:
    for number in range(7):
        read, wrote = APP.actions(day(number)), APP.messages(day(number))
        assert {"share", "View", ""} & {row["action"] for row in read}
        assert any(row["user_id"] == row["receiver_id"] for row in wrote)
        assert any(not row["receiver_id"] for row in wrote)
        for rows in read, wrote:
            assert max(Counter(tuple(row.values()) for row in rows).values()) > 1
            assert {None, ""} & {row["os"] for row in rows}
            assert {0, None} & {row["age"] for row in rows}
            ages = [(row["user_id"], row["time"], row["age"]) for row in rows]
            assert any(
                (user, at, 9) in ages and (user, at, 10) in ages
                for user, at, age in ages
                if age == 9
            )


def test_both_spellings_name_one_receiver_each() -> None:
    rows = replace(APP, both_spellings=True).messages(day(1))
    assert any(row["reciever_id"] and not row["receiver_id"] for row in rows)
    assert any(row["receiver_id"] and not row["reciever_id"] for row in rows)
    assert any(
        row["receiver_id"] and row["reciever_id"] not in (None, 0, row["receiver_id"])
        for row in rows
    )


def test_the_tables_hold_what_was_inserted(feed: FeedServer, clickhouse: ClickhouseServer) -> None:
    feed.create(spellings=["receiver_id"])
    rows = APP.messages(day(0))
    assert feed.insert("message_actions", rows) == len(rows)
    assert feed.ask("select count() from message_actions") == f"{len(rows)}\n".encode()
    (first,) = feed.ask(
        "select toUnixTimestamp(min(time)) from message_actions format TSV"
    ).splitlines()
    assert datetime.fromtimestamp(int(first), UTC) == min(row["time"] for row in rows)
    named = clickhouse.ask(
        "select name from system.columns where table = 'message_actions'"
        f" and database = '{feed.database}' and name like 'rec%' format TSV"
    )
    assert named == b"receiver_id\n"
