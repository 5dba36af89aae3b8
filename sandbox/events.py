"""A day of the made-up product's telemetry: sessions of clients, and what goes wrong with them.

Data flow: seed, day -> events, each with the instant at which it reaches the source
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sandbox.chance import Chance, LogNormal, Weighted
from sandbox.clients import Account
from sandbox.telemetry import TelemetryEvent

# Typical latency in milliseconds of each type of event; sessions begin with a login.
_LATENCIES_MS = {"page_view": 120, "api_call": 45, "search": 180, "click": 30, "export": 900}
_LOGIN, _LOGIN_MS = "login", 250
_TYPES = tuple(_LATENCIES_MS.items())
_TYPE_WEIGHTS = Weighted((40, 25, 12, 20, 3))
_TIMEOUT_MS = 30_000

# Sessions that begin in each hour of the wall clock, and how busy Monday to Sunday are.
_HOURS = Weighted(
    (2, 1, 1, 1, 1, 2, 5, 12, 25, 40, 46, 44, 36, 42, 45, 43, 38, 30, 22, 18, 14, 10, 6, 3)
)
_WEEKDAYS = (1.0, 1.05, 1.1, 1.05, 0.95, 0.5, 0.45)

_LATENCY_TAIL = LogNormal(0.9)
_SESSION_TAIL = LogNormal(0.4)  # some connections are slow altogether
_PAUSE_TAIL = LogNormal(1.1)
_ARRIVAL_TAIL = LogNormal(1.0)
_PAUSE_SECONDS = 20.0
_ARRIVAL_SECONDS = 2.0
_SESSION_END = 0.12  # the chance that an event is its session's last: 8 events on average

_ERRORS, _ERRORS_IN_BURST = 0.01, 0.5
_BURSTS = 2  # a day
_BURST_SLOWDOWN = 4.0
_SECOND_US = 1_000_000


class Arrival(NamedTuple):
    """An event and the instant from which the source shows it."""

    arrives_at: datetime
    event: TelemetryEvent


@dataclass(frozen=True, slots=True)
class Day:
    """A business day to make events for."""

    seed: int
    day: date
    zone: ZoneInfo
    ends_dead: bool  # nothing may spill over midnight: the next day is the one without anything

    @property
    def end(self) -> datetime:
        """The first instant after the day, in UTC."""
        following = self.day + timedelta(days=1)
        return datetime.combine(following, time(), self.zone).astimezone(UTC)

    def hours(self) -> list[datetime]:
        """The instants (UTC) at which the hours of the wall clock begin."""
        return [
            datetime.combine(self.day, time(hour), self.zone).astimezone(UTC) for hour in range(24)
        ]

    def clipped(self, instant: datetime) -> datetime:
        """Return the instant, or the day's last one where nothing may spill over."""
        if self.ends_dead and instant >= self.end:
            return self.end - timedelta(microseconds=1)
        return instant


def make_day(day: Day, accounts: Sequence[Account], events: int) -> list[Arrival]:
    """Make about `events` events on a usual day, in the order in which they arrive."""
    chance = Chance(day.seed, "events", day.day)
    noise = 0.9 + 0.2 * chance.unit()
    wanted = int(events * _WEEKDAYS[day.day.weekday()] * noise)
    arrivals = _sessions(day, [a.id for a in accounts if a.created_at < day.end], wanted, chance)
    arrivals += _spoil(arrivals, day, chance)
    arrivals.sort(key=lambda arrival: arrival.arrives_at)
    return arrivals


def _sessions(day: Day, clients: Sequence[str], wanted: int, chance: Chance) -> list[Arrival]:
    """Make sessions until there are as many events as wanted. No oddities yet."""
    unit, hours, end = chance.unit, day.hours(), day.end
    bursts = _bursts(day, chance)
    prefix = f"{day.seed & 0xFFFFFFFF:08x}-{day.day.year:04x}-{day.day:%m%d}-8000-"
    arrivals: list[Arrival] = []
    session = 0
    while clients and len(arrivals) < wanted:
        session += 1
        session_id = f"s-{day.day:%Y%m%d}-{session:06d}"
        share = unit()
        client_id = clients[int(len(clients) * share * share * share)]  # few are very active
        moment = hours[_HOURS.draw(chance)] + timedelta(microseconds=int(unit() * 3600 * 1e6))
        slowness = _SESSION_TAIL.draw(chance)
        event_type, typical_ms = _LOGIN, _LOGIN_MS
        while len(arrivals) < wanted and not (day.ends_dead and moment >= end):
            position = bisect_left(bursts, moment)
            in_burst = position % 2 == 1  # between a beginning and its end
            duration_ms = typical_ms * slowness * _LATENCY_TAIL.draw(chance)
            status = "ok"
            if unit() < (_ERRORS_IN_BURST if in_burst else _ERRORS):
                status = "error"
                duration_ms *= _BURST_SLOWDOWN
            delay_us = int(_ARRIVAL_SECONDS * _SECOND_US * _ARRIVAL_TAIL.draw(chance))
            arrivals.append(
                Arrival(
                    moment + timedelta(microseconds=delay_us),
                    {
                        "event_id": f"{prefix}{len(arrivals):012x}",
                        "client_id": client_id,
                        "event_type": event_type,
                        "duration_ms": int(duration_ms),
                        "status": status,
                        "session_id": session_id,
                        "event_ts": moment,
                        # The application servers' clocks show UTC, and so does their date: for
                        # hours after the business day's midnight it is yesterday's.
                        "event_date": moment.date(),
                    },
                )
            )
            if unit() < _SESSION_END:
                break
            moment += timedelta(
                microseconds=int(_PAUSE_SECONDS * _SECOND_US * _PAUSE_TAIL.draw(chance))
            )
            event_type, typical_ms = _TYPES[_TYPE_WEIGHTS.draw(chance)]
    return arrivals


def _bursts(day: Day, chance: Chance) -> list[datetime]:
    """Draw when errors come in bursts: beginning, end, beginning, end, none overlapping."""
    edges: list[datetime] = []
    for hour in sorted(9 + 2 * number for number in chance.distinct(5, _BURSTS)):
        begin = day.hours()[hour] + timedelta(minutes=chance.below(60))
        edges += [begin, begin + timedelta(minutes=chance.between(10, 40))]
    return edges


def _spoil(arrivals: list[Arrival], day: Day, chance: Chance) -> list[Arrival]:
    """Let oddities happen, each to events of its own and to one at least; return what they add.

    Changed events are replaced in `arrivals`; one that is sent again stays and gets company.
    """
    counts = [max(1, int(len(arrivals) * share)) for share, _ in _ODDITIES]
    unlucky = iter(chance.distinct(len(arrivals), sum(counts)))
    added: list[Arrival] = []
    for count, (_, oddity) in zip(counts, _ODDITIES, strict=True):
        # A day too small for all oddities has the first ones.
        for _, number in zip(range(count), unlucky, strict=False):
            first, *more = oddity(arrivals[number], day, chance)
            arrivals[number] = first
            added += more
    return added


_Oddity = Callable[[Arrival, Day, Chance], list[Arrival]]


def _with(column: str, *values: object) -> _Oddity:
    """Return the oddity that a column holds one of these values."""

    def oddity(arrival: Arrival, _day: Day, chance: Chance) -> list[Arrival]:
        changed: TelemetryEvent = {**arrival.event, column: chance.pick(values)}  # type: ignore[misc]
        return [Arrival(arrival.arrives_at, changed)]

    return oddity


def _late_by_hours(arrival: Arrival, _day: Day, chance: Chance) -> list[Arrival]:
    """Some device was without a network for a while."""
    late = timedelta(minutes=chance.between(60, 12 * 60))
    return [Arrival(arrival.arrives_at + late, arrival.event)]


def _late_by_days(arrival: Arrival, _day: Day, chance: Chance) -> list[Arrival]:
    """Or for the weekend: up to 2.8 days, which a look-back of three still sees."""
    late = timedelta(minutes=chance.between(24 * 60, int(2.8 * 24 * 60)))
    return [Arrival(arrival.arrives_at + late, arrival.event)]


def _stranger(arrival: Arrival, day: Day, chance: Chance) -> list[Arrival]:
    """A client that the CRM does not know; some differ from one it knows by case or a space."""
    client_id = str(arrival.event["client_id"])
    strangers = (f"x-{chance.below(20):03d}", client_id.upper(), f"{client_id} ")
    return _with("client_id", *strangers)(arrival, day, chance)


def _timed_out(arrival: Arrival, _day: Day, chance: Chance) -> list[Arrival]:
    """Not an error: only 'error' is one."""
    timed_out: TelemetryEvent = {
        **arrival.event,
        "status": "timeout",
        "duration_ms": _TIMEOUT_MS + chance.below(50),
    }
    return [Arrival(arrival.arrives_at, timed_out)]


def _dated_wrongly(arrival: Arrival, day: Day, chance: Chance) -> list[Arrival]:
    """An event_date that is off by a day, whatever the hour."""
    other = day.day + timedelta(days=chance.pick((-1, 1)))
    return _with("event_date", other)(arrival, day, chance)


def _twice(arrival: Arrival, _day: Day, chance: Chance) -> list[Arrival]:
    """An exact duplicate."""
    return [arrival, Arrival(_later(arrival, chance), arrival.event.copy())]


def _twice_without_id(arrival: Arrival, day: Day, chance: Chance) -> list[Arrival]:
    """The same without event_id: two events, as far as anybody can tell."""
    return _twice(_with("event_id", None)(arrival, day, chance)[0], day, chance)


def _sent_again(arrival: Arrival, day: Day, chance: Chance) -> list[Arrival]:
    """One event_id with a later event_ts and another duration: the later one holds."""
    moment = _moment(arrival) + timedelta(milliseconds=chance.between(1, 30_000))
    again: TelemetryEvent = {
        **arrival.event,
        "event_ts": day.clipped(moment),
        "duration_ms": chance.between(1, 500),
    }
    # Not before it has happened: it may be as much later as the first one took to arrive.
    return [arrival, Arrival(_later(arrival, chance) + timedelta(seconds=30), again)]


def _contradicted(arrival: Arrival, _day: Day, chance: Chance) -> list[Arrival]:
    """One event_id and event_ts, but another duration, or none: the greatest holds, null lowest."""
    duration_ms = chance.pick((None, chance.between(1, 5_000)))
    other: TelemetryEvent = {**arrival.event, "duration_ms": duration_ms}
    return [arrival, Arrival(_later(arrival, chance), other)]


def _sent_again_next_day(arrival: Arrival, day: Day, chance: Chance) -> list[Arrival]:
    """One event_id on two days: unique on each."""
    moment = day.clipped(_moment(arrival) + timedelta(days=1))
    again: TelemetryEvent = {**arrival.event, "event_ts": moment}
    return [arrival, Arrival(moment + timedelta(seconds=chance.between(1, 60)), again)]


def _moment(arrival: Arrival) -> datetime:
    moment = arrival.event["event_ts"]
    assert moment is not None, "each event has one oddity, and it has one before it"
    return moment


def _later(arrival: Arrival, chance: Chance) -> datetime:
    """Draw when a repetition arrives: up to ten minutes after."""
    return arrival.arrives_at + timedelta(seconds=chance.between(1, 600))


# Each with its share of the day's events.
_ODDITIES: tuple[tuple[float, _Oddity], ...] = (
    (0.0003, _with("event_ts", None)),
    (0.006, _with("client_id", None)),
    (0.010, _with("session_id", None)),
    (0.0005, _with("session_id", "")),  # '' is a value
    (0.010, _with("duration_ms", None)),
    (0.0005, _with("duration_ms", -1, -250, 0)),  # a clock was set back in between
    (0.008, _with("event_id", None)),
    (0.001, _with("status", "Error")),  # not 'error'
    (0.005, _timed_out),
    (0.008, _stranger),
    (0.0005, _dated_wrongly),
    (0.020, _late_by_hours),
    (0.003, _late_by_days),
    (0.005, _twice),
    (0.001, _twice_without_id),
    (0.005, _sent_again),
    (0.001, _contradicted),
    (0.0003, _sent_again_next_day),
)
