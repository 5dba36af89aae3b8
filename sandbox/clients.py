"""The clients of the made-up world, as the CRM's API shows them over time.

Data flow: seed -> versions of clients, each with the instant from which the API shows it
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sandbox.chance import Chance, Weighted

SEGMENTS = ("enterprise", "smb", "startup", "self-employed", "малый бизнес")
PLANS = ("free", "basic", "pro", "enterprise")
COUNTRIES = ("RU", "KZ", "BY", "AM", "GE", "DE", "NA")  # NA is Namibia, and no null
HOSTILE_TEXT = '\\N "quoted", back\\slash,\ttab\nand line; Ünï 测试'

_SEGMENT_WEIGHTS = Weighted((5, 30, 20, 25, 20))
_PLAN_WEIGHTS = Weighted((50, 28, 17, 5))
_COUNTRY_WEIGHTS = Weighted((60, 12, 10, 6, 5, 5, 2))

_BORN_BEFORE_DAYS = 730
_SHARE_BORN_IN_WINDOW = 0.15
_SHARE_WITHOUT_UPDATED_AT = 0.1
_SHARE_UPDATED_BEFORE_WINDOW = 0.3
_CHANGES_A_DAY = 0.05  # a client's chance to change something on a day
_ODDITY_SHARE = 0.02  # of the clients, for each oddity, and one at least
_DAY = 86_400  # seconds


class ServedRecord(NamedTuple):
    """A client's version as the API sends it, and since when it does."""

    visible_at: datetime
    record: dict[str, Any]


class Account(NamedTuple):
    """What the telemetry needs to know of a client."""

    id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Clientele:
    """All clients, by how active they are, and all their records, in serving order."""

    accounts: tuple[Account, ...]
    records: tuple[ServedRecord, ...]


@dataclass(frozen=True, slots=True)
class _Window:
    """The instants in which the world lives, and how it draws and spells them."""

    start: datetime
    days: int
    zone: ZoneInfo
    chance: Chance

    def moment(self, first_day: float = 0.0, last_day: float | None = None) -> datetime:
        """Draw an instant (whole seconds) between two days, counted from the start."""
        last_day = float(self.days) if last_day is None else last_day
        seconds = self.chance.between(int(first_day * _DAY), max(int(last_day * _DAY), 1))
        return self.start + timedelta(seconds=seconds)

    def soon(self, instant: datetime) -> datetime:
        """Draw when the API shows what happened at `instant`: within five minutes."""
        return instant + timedelta(seconds=self.chance.between(1, 300))

    def spelled(self, instant: datetime) -> str:
        """Write an instant in one of the ways that the CRM has picked up over the years."""
        way = self.chance.below(20)
        if way == 0:
            return instant.astimezone(self.zone).isoformat()  # as in 2024-12-08T03:00:00+03:00
        if way == 1:
            return instant.replace(tzinfo=None).isoformat()  # naive: UTC
        if way == 2:
            return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def make_clientele(
    seed: int, start: datetime, days: int, clients: int, zone: ZoneInfo
) -> Clientele:
    """Make the clients of `days` days from `start` (UTC) on."""
    window = _Window(start, days, zone, Chance(seed, "clients"))
    accounts = []
    records: list[ServedRecord] = []
    for number in range(clients):
        versions = list(_life(f"c-{number:05d}", window))
        accounts.append(Account(versions[0].record["id"], _birth(versions[0])))
        records += versions
    odd = _oddities(records, clients, window)
    known = {account.id for account in accounts} | {None}
    for served in odd:
        if served.record.get("id") not in known:  # an oddity with a client of its own
            accounts.append(Account(served.record["id"], _birth(served)))
    records += odd
    # Stable: what becomes visible at once is served in the order in which it was made.
    records.sort(key=lambda served: served.visible_at)
    return Clientele(tuple(accounts), tuple(records))


def _birth(first: ServedRecord) -> datetime:
    born = datetime.fromisoformat(first.record["created_at"])
    return born if born.tzinfo else born.replace(tzinfo=UTC)


def _life(client_id: str, window: _Window) -> Iterator[ServedRecord]:
    """Yield a client's first version and the changes within the window."""
    chance = window.chance
    in_window = chance.happens(_SHARE_BORN_IN_WINDOW)
    born = window.moment() if in_window else window.moment(-_BORN_BEFORE_DAYS, -1)
    updated: datetime | None = born
    if chance.happens(_SHARE_WITHOUT_UPDATED_AT):
        updated = None
    elif not in_window and chance.happens(_SHARE_UPDATED_BEFORE_WINDOW):
        updated = born + timedelta(seconds=chance.below(int((window.start - born).total_seconds())))
    record = {
        "id": client_id,
        "segment": SEGMENTS[_SEGMENT_WEIGHTS.draw(chance)],
        "country": COUNTRIES[_COUNTRY_WEIGHTS.draw(chance)],
        "plan": PLANS[_PLAN_WEIGHTS.draw(chance)],
        "created_at": window.spelled(born),
        "updated_at": window.spelled(updated) if updated else None,
    }
    yield ServedRecord(window.soon(updated or born), record)
    for day in range(window.days):
        moment = window.moment(day, day + 1)
        if chance.happens(_CHANGES_A_DAY) and moment > born:
            record = _changed(record, moment, window)
            yield ServedRecord(window.soon(moment), record)


def _changed(
    record: dict[str, Any], moment: datetime, window: _Window, **new: object
) -> dict[str, Any]:
    """Return the next version: with the attributes of `new`, or with one that is drawn."""
    if not new:
        name, values = window.chance.pick(
            (("plan", PLANS), ("plan", PLANS), ("segment", SEGMENTS), ("country", COUNTRIES))
        )
        new = {name: window.chance.pick([value for value in values if value != record[name]])}
    return {**record, **new, "updated_at": window.spelled(moment)}


def _oddities(records: list[ServedRecord], clients: int, window: _Window) -> list[ServedRecord]:
    """Return what no tidy CRM would send; each kind happens to clients of its own."""
    by_client: dict[str, list[ServedRecord]] = {}
    for served in records:
        by_client.setdefault(served.record["id"], []).append(served)
    # Of those that are done changing early, so that what happens to them is seen in the window.
    early = window.start + timedelta(days=window.days * 0.5)
    lives = [life for life in by_client.values() if life[-1].visible_at < early]
    each = max(1, int(clients * _ODDITY_SHARE))
    unlucky = window.chance.distinct(len(lives), each * len(_ODDITIES))
    odd: list[ServedRecord] = []
    for turn, number in enumerate(unlucky):
        oddity = _ODDITIES[turn % len(_ODDITIES)]
        odd += oddity(lives[number][-1], window)
    return odd


def _two_at_once(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """Two versions with one updated_at in one batch: the one served last holds."""
    moment = _after(last, window)
    shown = window.soon(moment)
    first = {**last.record, "updated_at": window.spelled(moment), "plan": "basic"}
    return [ServedRecord(shown, first), ServedRecord(shown, {**first, "plan": "pro"})]


def _older_after_newer(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """A version that shows up 18 h late, after its successor.

    Not later: a reader that looks back one day could not find it.
    """
    moment = _after(last, window)
    successor = moment + timedelta(hours=6)
    older = _changed(last.record, moment, window, plan="pro", segment="smb")
    newer = _changed(last.record, successor, window, plan="enterprise", segment="enterprise")
    return [
        ServedRecord(window.soon(successor), newer),
        ServedRecord(moment + timedelta(hours=18), older),
    ]


def _served_again(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """The same version once more, to the letter."""
    shown = max(last.visible_at, window.start) + timedelta(hours=20)
    return [ServedRecord(shown, dict(last.record))]


def _attributes_gone(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """Nulls, which overwrite, and '', which is a value."""
    moment = _after(last, window)
    gone = _changed(last.record, moment, window, segment=None, plan=None, country="")
    return [ServedRecord(window.soon(moment), gone)]


def _hostile_text(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """Text that has to be escaped wherever it goes."""
    moment = _after(last, window)
    hostile = _changed(last.record, moment, window, segment=HOSTILE_TEXT)
    return [ServedRecord(window.soon(moment), hostile)]


def _without_instants(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """Neither created_at nor updated_at: quarantine."""
    nowhen = {**last.record, "plan": "free", "created_at": None, "updated_at": None}
    return [ServedRecord(_after(last, window), nowhen)]


def _without_id(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """A null id, and none at all: quarantine."""
    moment = _after(last, window)
    nobody = {**_changed(last.record, moment, window), "id": None}
    nameless = {name: value for name, value in nobody.items() if name != "id"}
    return [ServedRecord(window.soon(moment), nobody), ServedRecord(window.soon(moment), nameless)]


def _born_in_retrospect(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """A client of its own whose updated_at is before its created_at."""
    born = window.moment(0, window.days * 0.6)
    record = {
        **last.record,
        "id": f"{last.record['id']}-r",
        "created_at": window.spelled(born),
        "updated_at": window.spelled(born - timedelta(hours=1)),
    }
    return [ServedRecord(window.soon(born), record)]


def _never_updated(last: ServedRecord, window: _Window) -> list[ServedRecord]:
    """A client of its own without updated_at, created in the window."""
    born = window.moment(0, window.days * 0.6)
    record = {
        **last.record,
        "id": f"{last.record['id']}-n",
        "created_at": window.spelled(born),
        "updated_at": None,
    }
    return [ServedRecord(window.soon(born), record)]


_ODDITIES: tuple[Callable[[ServedRecord, _Window], list[ServedRecord]], ...] = (
    _two_at_once,
    _older_after_newer,
    _served_again,
    _attributes_gone,
    _hostile_text,
    _without_instants,
    _without_id,
    _born_in_retrospect,
    _never_updated,
)


def _after(last: ServedRecord, window: _Window) -> datetime:
    """Draw an instant after a version that is its client's last, early in the window if it can."""
    elapsed = (last.visible_at - window.start).total_seconds() / _DAY
    first_day = max(elapsed, 0.0)
    return window.moment(first_day, max(window.days * 0.6, first_day + 0.1))
