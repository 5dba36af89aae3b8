"""A made-up social app: what its users saw, liked and wrote to each other, the same for a seed.

    app = SocialApp(seed=5, start=date(2024, 12, 2), days=7)
    app.actions(day), app.messages(day)       # rows as the source has them

It grows by a few users a day, by many on the days of a campaign; evenings are busy and weekends are
not. Some users only read the feed, some only write, some only receive. What makes it worth testing
against is listed at the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.chance import Chance, Weighted

Row = dict[str, Any]

# How busy each hour of the wall clock is, and Monday to Sunday.
_HOURS = Weighted(
    (8, 4, 2, 1, 1, 2, 6, 14, 20, 22, 24, 26, 30, 28, 26, 26, 28, 32, 40, 48, 52, 46, 30, 16)
)
_WEEKDAYS = (1.0, 1.02, 1.05, 1.03, 0.95, 0.62, 0.58)
_GROWTH = 0.02  # of the first users, each day
_CAMPAIGN_EVERY, _CAMPAIGN_GROWTH = 5, 0.15
_POSTS = 500
_VIEWS_A_LIKE = 5

_PLACES = (
    ("Russia", "Moscow"),
    ("Russia", "Saint Petersburg"),
    ("Ukraine", "Kyiv"),
    ("Cyprus", "Limassol"),
)
_SYSTEMS = Weighted((65, 35))
_AGES = Weighted((6, 14, 18, 14, 10, 8, 6, 4))
# Who reads the feed, who writes messages; the last kind only receives them.
_KINDS = ((True, False), (True, True), (False, True), (False, False))
_KIND_WEIGHTS = Weighted((55, 30, 10, 5))


@dataclass(frozen=True)
class User:
    """A user from the day on which they came, with what the app knows of them."""

    id: int
    joined: date
    reads: bool
    writes: bool
    attributes: Row


@dataclass(frozen=True)
class SocialApp:
    """`days` business days from `start` on; all oddities are there from 40 users on."""

    seed: int
    start: date
    days: int = 7
    users: int = 150  # on the first day
    actions_a_user: int = 12  # on a usual weekday
    messages_a_user: int = 4
    timezone: str = "Europe/Moscow"
    both_spellings: bool = False  # half of the messages have their receiver in the other column

    @property
    def end(self) -> date:
        """The first day that is out."""
        return self.start + timedelta(days=self.days)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The business zone."""
        return ZoneInfo(self.timezone)

    @cached_property
    def everybody(self) -> tuple[User, ...]:
        """All users in the order in which they came."""
        chance = Chance(self.seed, "users")
        found: list[User] = []
        for number in range(self.days):
            is_campaign = number % _CAMPAIGN_EVERY == _CAMPAIGN_EVERY - 1
            growth = _CAMPAIGN_GROWTH if is_campaign else _GROWTH
            coming = self.users if number == 0 else max(1, int(self.users * growth))
            for _ in range(coming):
                reads, writes = _KINDS[_KIND_WEIGHTS.draw(chance)]
                joined = self.start + timedelta(days=number)
                source = "ads" if is_campaign or chance.happens(0.4) else "organic"
                found.append(
                    User(1000 + len(found), joined, reads, writes, _attributes(chance, source))
                )
        return tuple(found)

    def present(self, day: date) -> list[User]:
        """The users of a day."""
        return [user for user in self.everybody if user.joined <= day]

    def actions(self, day: date) -> list[Row]:
        """The rows of feed_actions whose time lies on a business day."""
        chance = Chance(self.seed, "actions", day)
        rows = []
        for user in self.present(day):
            if not user.reads:
                continue
            for _ in range(self._many(chance, day, self.actions_a_user)):
                is_like = chance.below(_VIEWS_A_LIKE + 1) == 0
                rows.append(
                    {
                        "user_id": user.id,
                        "post_id": 1 + int(_POSTS * chance.unit() * chance.unit()),
                        "action": "like" if is_like else "view",
                        "time": self._moment(chance, day),
                        **user.attributes,
                    }
                )
        _spoil(rows, _ACTION_ODDITIES, chance)
        return rows

    def messages(self, day: date) -> list[Row]:
        """The rows of message_actions whose time lies on a business day."""
        chance = Chance(self.seed, "messages", day)
        present = self.present(day)
        rows = []
        for user in present:
            if not user.writes:
                continue
            for _ in range(self._many(chance, day, self.messages_a_user)):
                receiver = chance.pick(present).id
                rows.append(
                    {
                        "user_id": user.id,
                        **self._receiver(chance, receiver),
                        "time": self._moment(chance, day),
                        **user.attributes,
                    }
                )
        _spoil(rows, _MESSAGE_ODDITIES, chance)
        return rows

    def all_actions(self) -> Iterator[Row]:
        """The rows of feed_actions of all days, a day at a time."""
        for number in range(self.days):
            yield from self.actions(self.start + timedelta(days=number))

    def all_messages(self) -> Iterator[Row]:
        """The rows of message_actions of all days, a day at a time."""
        for number in range(self.days):
            yield from self.messages(self.start + timedelta(days=number))

    def _receiver(self, chance: Chance, receiver: int) -> Row:
        if not self.both_spellings:
            # Whichever of the two the table has.
            return {"reciever_id": receiver, "receiver_id": receiver}
        if chance.happens(0.5):
            return {"reciever_id": receiver, "receiver_id": chance.pick((0, None))}
        return {"reciever_id": chance.pick((0, None, receiver + 1)), "receiver_id": receiver}

    def _many(self, chance: Chance, day: date, usual: int) -> int:
        return int(usual * _WEEKDAYS[day.weekday()] * 2 * chance.unit() + 0.5)

    def _moment(self, chance: Chance, day: date) -> datetime:
        """A whole second of a day, in UTC."""
        hour = datetime.combine(day, time(_HOURS.draw(chance)), self.zone).astimezone(UTC)
        return hour + timedelta(seconds=chance.below(3600))


def _attributes(chance: Chance, source: str) -> Row:
    country, city = chance.pick(_PLACES)
    return {
        "gender": chance.below(2),
        "age": 14 + 5 * _AGES.draw(chance) + chance.below(5),
        "country": country,
        "city": city,
        "os": ("Android", "iOS")[_SYSTEMS.draw(chance)],
        "source": source,
        "exp_group": chance.below(5),
    }


# --- oddities -------------------------------------------------------------------------------------

_Oddity = Callable[[Row, Chance], list[Row]]


def _spoil(rows: list[Row], oddities: tuple[_Oddity, ...], chance: Chance) -> None:
    """Let each oddity happen to one row in a hundred, and to one at least; none to two of them."""
    count = max(1, len(rows) // 100)
    unlucky = iter(chance.distinct(len(rows), count * len(oddities)))
    added: list[Row] = []
    for oddity in oddities:
        for _, number in zip(range(count), unlucky, strict=False):
            first, *more = oddity(rows[number], chance)
            rows[number] = first
            added += more
    rows += added


def _with(**values: tuple[object, ...]) -> _Oddity:
    """The oddity that columns hold one of these values."""

    def oddity(row: Row, chance: Chance) -> list[Row]:
        return [{**row, **{name: chance.pick(options) for name, options in values.items()}}]

    return oddity


def _twice(row: Row, _chance: Chance) -> list[Row]:
    """Identical rows: two real events."""
    return [row, dict(row)]


def _tied(row: Row, chance: Chance) -> list[Row]:
    """Rows of one second that contradict each other: 9 and 10 years, a code without a name."""
    return [
        {**row, "age": 9},
        {**row, "age": 10, "os": chance.pick(("android", "iOS", ""))},
        {**row, "age": None, "gender": chance.pick((0, 1, 2))},
    ]


def _at_an_edge(row: Row, chance: Chance) -> list[Row]:
    """Not of the usual clock: the day's last second, or its first, by Moscow's midnight (21:00 UTC)."""
    moment: datetime = row["time"]
    midnight = moment.replace(hour=21, minute=0, second=0)
    begin = midnight if midnight <= moment else midnight - timedelta(days=1)
    return [{**row, "time": begin + timedelta(seconds=chance.pick((0, 86_399)))}]


def _to_oneself(row: Row, _chance: Chance) -> list[Row]:
    """Sent and received by one."""
    return [{**row, "reciever_id": row["user_id"], "receiver_id": row["user_id"]}]


def _to_nobody(row: Row, chance: Chance) -> list[Row]:
    """Sent, and received by nobody."""
    nobody = chance.pick((0, None))
    return [{**row, "reciever_id": nobody, "receiver_id": nobody}]


_COMMON: tuple[_Oddity, ...] = (
    _twice,
    _tied,
    _at_an_edge,
    _with(os=("iOS", "Android", "Linux"), age=(18, 55)),  # another phone, another year
    _with(gender=(None,), os=(None, "")),
    _with(age=(0, None), gender=(0, 2)),
)
_ACTION_ODDITIES = (*_COMMON, _with(action=("share", "View", ""), os=("Windows",), age=(99,)))
_MESSAGE_ODDITIES = (*_COMMON, _to_oneself, _to_nobody)
