"""The activity oracle against cases worked by hand: every expected number is a literal."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from .activity import (
    Slice,
    UserDay,
    activity_slices,
    differences,
    rejected,
    user_activity,
)

DAY = date(2024, 12, 8)
NEXT = date(2024, 12, 9)
NOON = datetime(2024, 12, 8, 12, tzinfo=UTC)


def action(user_id: object = 1, **others: object) -> dict[str, Any]:
    row: dict[str, Any] = {"user_id": user_id, "post_id": 7, "action": "view", "time": NOON}
    return row | {"gender": 0, "age": 30, "os": "iOS"} | others


def message(user_id: object = 1, receiver_id: object = 2, **others: object) -> dict[str, Any]:
    row: dict[str, Any] = {"user_id": user_id, "receiver_id": receiver_id, "time": NOON}
    return row | {"gender": None, "age": None, "os": None} | others


def attributes(*rows: dict[str, Any], ds: date = DAY, user_id: int = 1) -> tuple[str, str, str]:
    """os, gender and age of a user's day; rows with an `action` are feed actions."""
    actions = [row for row in rows if "action" in row]
    messages = [row for row in rows if "action" not in row]
    (found,) = (
        row for row in user_activity(actions, messages) if (row.ds, row.user_id) == (ds, user_id)
    )
    return found.os, found.gender, found.age


def test_a_day_of_three_users() -> None:
    actions = [action(1), action(1), action(1, action="like"), action(2, gender=1, age=25)]
    messages = [message(1, 3), message(1, 3), message(2, 3), message(1, 1), message(2, None)]
    assert user_activity(actions, messages) == [
        UserDay(DAY, 1, "iOS", "0", "30", 2, 1, 3, 1, 2, 1),
        UserDay(DAY, 2, "iOS", "1", "25", 1, 0, 2, 0, 1, 0),
        UserDay(DAY, 3, "unknown", "unknown", "unknown", 0, 0, 0, 3, 0, 2),
    ]
    assert activity_slices(actions, messages) == [
        Slice(DAY, "age", "25", 1, 0, 0, 2, 0, 1),
        Slice(DAY, "age", "30", 2, 1, 1, 3, 1, 2),
        Slice(DAY, "age", "unknown", 0, 0, 3, 0, 2, 0),
        Slice(DAY, "gender", "female", 2, 1, 1, 3, 1, 2),
        Slice(DAY, "gender", "male", 1, 0, 0, 2, 0, 1),
        Slice(DAY, "gender", "unknown", 0, 0, 3, 0, 2, 0),
        # Both wrote to 3, whom the slice wrote to once; 1 wrote to itself as well.
        Slice(DAY, "os", "iOS", 3, 1, 1, 5, 1, 2),
        Slice(DAY, "os", "unknown", 0, 0, 3, 0, 2, 0),
    ]


def test_the_day_is_the_business_zones() -> None:
    late = datetime(2024, 12, 8, 21, 0, tzinfo=UTC)
    assert [row.ds for row in user_activity([action(time=late)], [])] == [NEXT]
    before = late - timedelta(seconds=1)
    assert [row.ds for row in user_activity([action(time=before)], [])] == [DAY]
    in_utc = user_activity([action(time=late)], [], ZoneInfo("UTC"))
    assert [row.ds for row in in_utc] == [DAY]


@pytest.mark.parametrize(
    ("text", "ds"),
    [
        ("2024-12-08 20:59:59", DAY),
        ("2024-12-08T21:00:00", NEXT),
        ("2024-12-09T00:30:00+05:00", DAY),
        ("2024-12-08T23:30:00Z", NEXT),
    ],
)
def test_text_without_a_zone_is_utc(text: str, ds: date) -> None:
    assert [row.ds for row in user_activity([action(time=text)], [])] == [ds]


def test_attributes_are_the_last_known_of_both_tables_each_apart() -> None:
    first = action(os="iOS", gender=0, age=30)
    second = message(os="Android", gender=1, time=NOON + timedelta(hours=1))
    third = action(os="", gender=None, age=None, time=NOON + timedelta(hours=2))
    assert attributes(first, second, third) == ("Android", "1", "30")
    assert attributes(third, second, first) == ("Android", "1", "30")


def test_zero_is_a_value() -> None:
    later = action(gender=0, age=0, os="0", time=NOON + timedelta(seconds=1))
    assert attributes(action(gender=1), later) == ("0", "0", "0")


@pytest.mark.parametrize(
    ("rivals", "found"),
    [
        ([{"age": 9}, {"age": 10}], "10"),
        ([{"age": 10}, {"age": 9}], "10"),
        ([{"age": 10}, {"age": None}], "10"),
        ([{"age": "9"}, {"age": "10"}], "10"),
    ],
)
def test_in_one_second_the_greatest_number_wins(rivals: list[dict[str, Any]], found: str) -> None:
    assert attributes(*(action(**rival) for rival in rivals))[2] == found


def test_in_one_second_the_greatest_text_wins_by_its_bytes() -> None:
    assert attributes(action(os="iOS"), action(os="Zune"), message(os="b"))[0] == "iOS"
    assert attributes(action(os="Z"), action(os="a"))[0] == "a"
    assert attributes(action(os="\uffff"), action(os="\U0001f600"))[0] == "\U0001f600"


def test_a_second_has_no_order_inside() -> None:
    earlier = action(age=50, time=NOON.replace(microsecond=1))
    later = action(age=40, time=NOON.replace(microsecond=999_999))
    assert attributes(earlier, later)[2] == "50"


def test_attributes_are_carried_forward_and_never_back() -> None:
    first, second = action(time=NOON, age=30), action(time=NOON + timedelta(days=3), age=31)
    between = message(5, 1, time=NOON + timedelta(days=2))
    before = message(5, 1, time=NOON - timedelta(days=1))
    found = {r.ds.day: r.age for r in user_activity([first, second], [between, before])
             if r.user_id == 1}  # fmt: skip
    assert found == {7: "unknown", 8: "30", 10: "30", 11: "31"}


def test_a_message_is_its_senders_and_its_receivers() -> None:
    """A03: sent in the sender's slice, received in the receiver's."""
    found = {
        (row.dimension_value, row.messages_sent, row.messages_received)
        for row in activity_slices([action(1, os="iOS"), action(2, os="Android")], [message(1, 2)])
        if row.dimension == "os"
    }
    assert found == {("iOS", 1, 0), ("Android", 0, 1)}


@pytest.mark.parametrize("nobody", [0, None, "", "0"])
def test_nobody_receives_what_is_sent_all_the_same(nobody: object) -> None:
    (row,) = user_activity([], [message(1, nobody)])
    assert (row.messages_sent, row.users_sent, row.messages_received) == (1, 0, 0)


@pytest.mark.parametrize(
    ("spelt", "receiver"),
    [
        ({"reciever_id": 3}, 3),
        ({"receiver_id": 4}, 4),
        ({"reciever_id": 3, "receiver_id": 0}, 3),
        ({"reciever_id": None, "receiver_id": 4}, 4),
        ({"reciever_id": 3, "receiver_id": 4}, 4),
    ],
)
def test_either_spelling_names_the_receiver(spelt: dict[str, object], receiver: int) -> None:
    row = message(1)
    del row["receiver_id"]
    assert [r.user_id for r in user_activity([], [row | spelt])] == [1, receiver]


def test_a_gender_without_a_name_keeps_its_digits() -> None:
    found = [r.dimension_value for r in activity_slices([action(1, gender=7)], [])]
    assert found == ["30", "7", "iOS"]


def test_what_can_not_be_used_is_rejected_and_says_nothing() -> None:
    bad_actions = [
        action(action="share", age=99),
        action(action="View"),
        action(action=None),
        action(None),
        action(time=None),
        action(time="yesterday"),
        action(age="old"),
        action(os="i\0OS"),
    ]
    bad_messages = [message(None), message(time=None), message(1, "somebody")]
    good, sent = action(), message()
    assert rejected([*bad_actions, good], [*bad_messages, sent]) == (bad_actions, bad_messages)
    assert user_activity([*bad_actions, good], [*bad_messages, sent]) == user_activity(
        [good], [sent]
    )


def test_differences_name_each_wrong_cell() -> None:
    expected = user_activity([action()], [])
    right = {field: getattr(expected[0], field) for field in UserDay.__slots__}
    assert differences(expected, [right]) == []
    assert differences(expected, [right | {"views": 2}]) == [
        "(datetime.date(2024, 12, 8), 1): views is 2, expected 1"
    ]
    assert differences(expected, [right | {"views": 1.0}]) != []  # A06: counts are no floats
    assert "row is missing" in differences(expected, [])[0]
    assert "duplicate key" in differences(expected, [right, right])[0]
    assert "row is extra" in differences(expected, [right, right | {"user_id": 5}])[0]
