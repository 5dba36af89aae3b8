"""What SPEC section 3 (feed and messages) says the tables must hold.

An independent source of truth: the standard library only, written from SPEC and from no model or
loader. It starts from the rows of ``feed_actions`` and ``message_actions`` as the source holds them
and computes ``fct_user_activity``, ``activity_slices`` and what has to be quarantined.

Text is compared as Python ``str``: the order of code points is the order of UTF-8 bytes (SPEC 0).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

Row = Mapping[str, object]

MOSCOW = ZoneInfo("Europe/Moscow")
GENDERS = {"0": "female", "1": "male"}  # SPEC 3: the seed gender_codes
ATTRIBUTES = ("os", "gender", "age")
UNKNOWN = "unknown"
ACTIONS = ("view", "like")
RECEIVER_SPELLINGS = ("receiver_id", "reciever_id")


@dataclass(frozen=True, slots=True)
class UserDay:
    """One row of ``fct_user_activity``."""

    ds: date
    user_id: int
    os: str
    gender: str
    age: str
    views: int
    likes: int
    messages_sent: int
    messages_received: int
    users_sent: int
    users_received: int


@dataclass(frozen=True, slots=True)
class Slice:
    """One row of ``activity_slices``."""

    event_date: date
    dimension: str
    dimension_value: str
    views: int
    likes: int
    messages_received: int
    messages_sent: int
    users_received: int
    users_sent: int


class _Feed(NamedTuple):
    """One usable feed action."""

    at: datetime
    user_id: int
    action: str
    attributes: dict[str, int | str]


class _Message(NamedTuple):
    """One usable message; no receiver is None."""

    at: datetime
    user_id: int
    receiver_id: int | None
    attributes: dict[str, int | str]


class _UnusableError(ValueError):
    """A row that can't be used: it is quarantined (SPEC 0, Quarantine)."""


# --- values ---------------------------------------------------------------------------------------


def _instant(value: object) -> datetime:
    """The instant in UTC; text without a zone is UTC (SPEC 3), as is a naive one (SPEC 0)."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise _UnusableError(f"no instant: {value!r}") from error
    if not isinstance(value, datetime):
        raise _UnusableError(f"no instant: {value!r}")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _number(value: object) -> int | None:
    """A whole number, as the source has it or as text; null and '' as None."""
    if value is None or value == "":
        return None
    try:
        return int(str(value))
    except ValueError as error:
        raise _UnusableError(f"no whole number: {value!r}") from error


def _text(value: object) -> str | None:
    if value is None or value == "":
        return None
    text = str(value)
    if "\0" in text:
        raise _UnusableError(f"U+0000 in {text!r}")
    return text


def _known(row: Row) -> dict[str, int | str]:
    """The attributes that a row knows: null and '' are skipped, 0 is a value (SPEC 3)."""
    read = {"os": _text(row["os"]), "gender": _number(row["gender"]), "age": _number(row["age"])}
    return {name: value for name, value in read.items() if value is not None}


def _user(row: Row) -> int:
    user_id = _number(row["user_id"])
    if user_id is None:
        raise _UnusableError("no user")
    return user_id


def _feed(row: Row) -> _Feed:
    at, user_id, action = _instant(row["time"]), _user(row), row["action"]
    if action not in ACTIONS:
        raise _UnusableError(f"neither a view nor a like: {action!r}")
    return _Feed(at, user_id, str(action), _known(row))


def _message(row: Row) -> _Message:
    receivers = [_number(row.get(spelling)) for spelling in RECEIVER_SPELLINGS]
    receiver_id = next((receiver for receiver in receivers if receiver), None)  # 0 is nobody
    return _Message(_instant(row["time"]), _user(row), receiver_id, _known(row))


def _usable(actions: Iterable[Row], messages: Iterable[Row]) -> tuple[list[_Feed], list[_Message]]:
    feed, sent = [], []
    for row in actions:
        try:
            feed.append(_feed(row))
        except _UnusableError:
            continue
    for row in messages:
        try:
            sent.append(_message(row))
        except _UnusableError:
            continue
    return feed, sent


def rejected(actions: Iterable[Row], messages: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of either table that have to be quarantined, in the order given."""
    bad_actions, bad_messages = [], []
    for row in actions:
        try:
            _feed(row)
        except _UnusableError:
            bad_actions.append(row)
    for row in messages:
        try:
            _message(row)
        except _UnusableError:
            bad_messages.append(row)
    return bad_actions, bad_messages


def business_day(instant: datetime, tz: ZoneInfo) -> date:
    """The day of an instant in the business time zone (SPEC 0, Days)."""
    return instant.astimezone(tz).date()


# --- attributes -----------------------------------------------------------------------------------


class _History:
    """What was said of each user, second by second."""

    def __init__(self, rows: Iterable[_Feed | _Message], tz: ZoneInfo) -> None:
        # (user, attribute) -> (day, second, value) of everything that was ever said.
        self._said: defaultdict[tuple[int, str], list[tuple[date, datetime, int | str]]] = (
            defaultdict(list)
        )
        for row in rows:
            second = row.at.replace(microsecond=0)
            for name, value in row.attributes.items():
                said = (business_day(row.at, tz), second, value)
                self._said[row.user_id, name].append(said)

    def at_end_of(self, day: date, user_id: int, attribute: str) -> str:
        """The last known value up to the end of a day; of one second the greatest (SPEC 3)."""
        until = [said[1:] for said in self._said[user_id, attribute] if said[0] <= day]
        return str(max(until)[1]) if until else UNKNOWN


# --- tables ---------------------------------------------------------------------------------------


def user_activity(
    actions: Iterable[Row], messages: Iterable[Row], tz: ZoneInfo = MOSCOW
) -> list[UserDay]:
    """``fct_user_activity`` of every day with a usable row, sorted by day and user."""
    feed, sent = _usable(actions, messages)
    history = _History([*feed, *sent], tz)
    counts: Counter[tuple[date, int, str]] = Counter()
    others: defaultdict[tuple[date, int, str], set[int]] = defaultdict(set)
    for action in feed:
        counts[business_day(action.at, tz), action.user_id, f"{action.action}s"] += 1
    for message in sent:
        day, sender, receiver = business_day(message.at, tz), message.user_id, message.receiver_id
        counts[day, sender, "messages_sent"] += 1
        if receiver is not None:
            counts[day, receiver, "messages_received"] += 1
            others[day, sender, "users_sent"].add(receiver)
            others[day, receiver, "users_received"].add(sender)
    return [
        UserDay(
            ds=day,
            user_id=user_id,
            **{name: history.at_end_of(day, user_id, name) for name in ATTRIBUTES},
            views=counts[day, user_id, "views"],
            likes=counts[day, user_id, "likes"],
            messages_sent=counts[day, user_id, "messages_sent"],
            messages_received=counts[day, user_id, "messages_received"],
            users_sent=len(others[day, user_id, "users_sent"]),
            users_received=len(others[day, user_id, "users_received"]),
        )
        for day, user_id in sorted({(day, user_id) for day, user_id, _ in counts})
    ]


def activity_slices(
    actions: Sequence[Row],
    messages: Sequence[Row],
    tz: ZoneInfo = MOSCOW,
    genders: Mapping[str, str] = GENDERS,
) -> list[Slice]:
    """``activity_slices`` of every day with a usable row, sorted by its grain."""
    users = user_activity(actions, messages, tz)
    found: list[Slice] = []
    for dimension in ATTRIBUTES:
        slice_of = {(user.ds, user.user_id): _named(user, dimension, genders) for user in users}
        members: defaultdict[tuple[date, str], list[UserDay]] = defaultdict(list)
        for user in users:
            members[user.ds, slice_of[user.ds, user.user_id]].append(user)
        senders: defaultdict[tuple[date, str], set[int]] = defaultdict(set)
        receivers: defaultdict[tuple[date, str], set[int]] = defaultdict(set)
        for message in _usable((), messages)[1]:
            if message.receiver_id is None:
                continue
            day = business_day(message.at, tz)
            receivers[day, slice_of[day, message.user_id]].add(message.receiver_id)
            senders[day, slice_of[day, message.receiver_id]].add(message.user_id)
        found += [
            Slice(
                event_date=day,
                dimension=dimension,
                dimension_value=value,
                views=sum(user.views for user in group),
                likes=sum(user.likes for user in group),
                messages_received=sum(user.messages_received for user in group),
                messages_sent=sum(user.messages_sent for user in group),
                users_received=len(senders[day, value]),
                users_sent=len(receivers[day, value]),
            )
            for (day, value), group in members.items()
        ]
    return sorted(found, key=lambda row: (row.event_date, row.dimension, row.dimension_value))


def _named(user: UserDay, dimension: str, genders: Mapping[str, str]) -> str:
    value = str(getattr(user, dimension))
    return genders.get(value, value) if dimension == "gender" else value


# --- comparison -----------------------------------------------------------------------------------


def _lines(
    expected: Sequence[UserDay] | Sequence[Slice], actual: Sequence[Row], key: Sequence[str]
) -> Iterator[str]:
    found: defaultdict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in actual:
        found[tuple(row[column] for column in key)].append(row)
    due = {tuple(asdict(row)[column] for column in key): row for row in expected}
    if len(due) != len(expected):
        raise ValueError("the expected rows repeat a key")
    for place, wanted in due.items():
        rows = found.get(place, [])
        if not rows:
            yield f"{place}: row is missing, expected {wanted}"
        for row in rows:
            for field in fields(wanted):
                value = getattr(wanted, field.name)
                if type(row[field.name]) is not type(value) or row[field.name] != value:
                    yield f"{place}: {field.name} is {row[field.name]!r}, expected {value!r}"
    for place, rows in found.items():
        if place not in due:
            yield f"{place}: row is extra: {dict(rows[0])!r}"
        if len(rows) > 1:
            yield f"{place}: duplicate key, {len(rows)} rows"


def differences(
    expected: Sequence[UserDay] | Sequence[Slice], actual: Sequence[Row], limit: int = 20
) -> list[str]:
    """How the actual rows differ from the expected ones, types included; empty if they are equal."""
    is_slice = bool(expected) and isinstance(expected[0], Slice)
    key = ("event_date", "dimension", "dimension_value") if is_slice else ("ds", "user_id")
    lines = list(_lines(expected, actual, key))
    if len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more"]
