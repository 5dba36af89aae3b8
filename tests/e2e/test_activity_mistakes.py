"""Mistakes of earlier pipelines with a social app (MISTAKES.md, A), from its tables to the mart."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import Project
from sandbox.feed import feed_server
from sandbox.outside import outside
from sandbox.postgres import PostgresServer
from tests.support.activity import Activity
from tests.support.vitrina import Vitrina

DAY = date(2024, 12, 5)
NOON = datetime(2024, 12, 5, 9, tzinfo=UTC)  # of Moscow
LATE = datetime(2024, 12, 5, 20, 59, 59, tzinfo=UTC)  # the day's last second in Moscow
KNOWN = {"gender": 0, "age": 30, "os": "iOS"}


def action(user_id: int, at: datetime = NOON, **others: Any) -> dict[str, Any]:
    """A view by a user on iOS."""
    return {"user_id": user_id, "action": "view", "time": at, **KNOWN, **others}


def message(
    sender: int, receiver: int | None, at: datetime = NOON, **others: Any
) -> dict[str, Any]:
    """A message by a user on iOS."""
    return {"user_id": sender, "reciever_id": receiver, "time": at, **KNOWN, **others}


ACTIONS = [
    action(1),
    action(1, action="like"),
    action(2, os="Android", gender=1, age=25),
    action(1, LATE),
    action(1, LATE + timedelta(seconds=1)),
]
MESSAGES = [
    message(1, 2),
    message(1, 2),
    message(4, 2),  # 4 only writes
    message(2, 3, os="Android", gender=1, age=25),  # 3 only receives
    message(1, 3),
    message(4, None),
]


@pytest.fixture(scope="module", params=["postgres", "clickhouse"])
def scene(
    request: pytest.FixtureRequest,
    server: PostgresServer,
    project: Project,
    clickhouse: ClickhouseServer,
) -> Iterator[Activity]:
    """The day landed and built, twice, as by a retry."""
    with outside(server) as world, feed_server(clickhouse, "mistakes") as feed:
        vitrina = Vitrina(world, project)
        if request.param == "postgres":
            vitrina.ingest("init")
            made = Activity.of(vitrina, feed)
        else:
            there = request.getfixturevalue("clickhouse_project")
            made = Activity.on_clickhouse(vitrina, there, clickhouse, feed)
        made.show(ACTIONS, MESSAGES)
        for _ in range(2):
            made.land(DAY)
            made.build([DAY])
        yield made


def users(scene: Activity, *columns: str) -> dict[int, tuple[Any, ...]]:
    """These columns of the fact, by user."""
    return {row["user_id"]: tuple(row[name] for name in columns) for row in scene.fact()}


def slices(scene: Activity, dimension: str, *columns: str) -> dict[str, tuple[Any, ...]]:
    """These columns of the mart, by value of a dimension."""
    return {
        row["dimension_value"]: tuple(row[name] for name in columns)
        for row in scene.mart()
        if row["dimension"] == dimension
    }


def test_mistake_a01_a_retry_appends_nothing(scene: Activity) -> None:
    """A01: a day appended again on a retry."""
    assert scene.query("select count(*) as n from raw.feed_actions") == [{"n": 4}]
    assert users(scene, "views", "likes")[1] == (2, 1)
    assert len(scene.mart()) == 3 + 3 + 3


def test_mistake_a02_the_day_is_the_runs_and_the_zone_the_business(scene: Activity) -> None:
    """A02: today() and yesterday(); the server's zone, which is Asia/Kolkata here."""
    assert scene.vitrina.run("feed").status == 2
    assert {row["ds"] for row in scene.fact()} == {DAY}
    assert scene.feed.ask("select timezone()") == b"Asia/Kolkata\n"
    # 20:59:59 UTC is still the day, 21:00:00 the next one.
    found = scene.query("select max(time) as last from raw.feed_actions")
    assert found[0]["last"] == LATE


def test_mistake_a03_a_message_is_received_in_its_receivers_slice(scene: Activity) -> None:
    """A03: received messages under the sender's attributes."""
    assert slices(scene, "os", "messages_sent", "messages_received") == {
        "iOS": (5, 0),
        "Android": (1, 3),
        "unknown": (0, 2),
    }


def test_mistake_a04_who_only_writes_or_only_receives_is_there(scene: Activity) -> None:
    """A04: joins and dropna lose message-only and receive-only users."""
    counted = users(scene, "views", "messages_sent", "messages_received", "os")
    assert counted[4] == (0, 2, 0, "iOS")
    assert counted[3] == (0, 0, 2, "unknown")


def test_mistake_a05_what_is_not_known_is_neither_zero_nor_empty(scene: Activity) -> None:
    """A05: outer joins filled with 0, '' and 1970-01-01."""
    assert users(scene, "os", "gender", "age")[3] == ("unknown", "unknown", "unknown")
    assert set(slices(scene, "gender", "views")) == {"female", "male", "unknown"}
    assert set(slices(scene, "age", "views")) == {"25", "30", "unknown"}


def test_mistake_a06_counts_are_integers(scene: Activity) -> None:
    """A06: counters as floats or text."""
    counts = (
        "views",
        "likes",
        "messages_sent",
        "messages_received",
        "users_sent",
        "users_received",
    )
    for row in [*scene.fact(), *scene.mart()]:
        assert {type(row[name]) for name in counts} == {int}


def test_mistake_a07_a_slice_counts_each_correspondent_once(scene: Activity) -> None:
    """A07: sums of per-user distinct counts called unique users."""
    by_user = users(scene, "users_sent", "users_received")
    assert by_user == {1: (2, 0), 2: (1, 2), 3: (0, 2), 4: (1, 0)}
    # 1 and 4 both wrote to 2: three distinct pairs of the slice, two receivers.
    assert slices(scene, "os", "users_sent", "users_received") == {
        "iOS": (2, 0),
        "Android": (1, 2),
        "unknown": (0, 2),
    }


def test_mistake_a08_sent_over_received_is_told_by_users_not_by_the_app(scene: Activity) -> None:
    """A08: an app-wide sent/received ratio, which is 1 by construction: what tells something is each
    user's own, and no mart has the other."""
    counted = users(scene, "messages_sent", "messages_received").values()
    to_somebody = sum(sent for sent, _ in counted) - 1
    assert to_somebody == sum(received for _, received in counted)
    assert sorted(sent / received for sent, received in counted if received) == [0.0, 1 / 3]
    columns = {name for row in scene.mart() for name in row}
    assert not [name for name in columns if "ratio" in name]


def test_mistake_a15_identical_rows_are_counted_each_time(scene: Activity) -> None:
    """A15: an identical block that ClickHouse drops without a word; last, as it lands another day."""
    block = [action(7, NOON + timedelta(days=3)), message(7, 8, NOON + timedelta(days=3))]
    for _ in range(2):
        scene.show(block[:1], block[1:])
    later = DAY + timedelta(days=3)
    assert scene.land(later)["rows_landed"] == 4
    scene.build([later])
    assert users(scene, "views", "messages_sent")[7] == (2, 2)
    assert users(scene, "messages_received", "users_received")[8] == (2, 1)
