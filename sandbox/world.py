"""The made-up outside world: a CRM's clients and a product's telemetry, the same for a seed.

    world = World(seed=7, start=date(2024, 12, 2), days=7)
    seen = world.until(world.midnight(3))       # what the sources show at that instant
    new = world.until(world.midnight(4), since=world.midnight(3))

What makes it worth testing against is listed where it happens: `sandbox.clients`, `sandbox.events`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.clients import Clientele, ServedRecord, make_clientele
from sandbox.events import Arrival, Day, make_day
from sandbox.telemetry import TelemetryEvent

_SMALLEST_WITH_QUIET_DAY = 3  # days


@dataclass(frozen=True)
class Sight:
    """What the sources show: records in serving order, events as they arrived, day by day."""

    records: list[dict[str, Any]]
    events: list[TelemetryEvent]


@dataclass(frozen=True)
class World:
    """`days` business days from `start` on, in the business zone.

    All oddities are in it from 4 days, 30 clients and 200 events a day on.
    """

    seed: int
    start: date
    days: int = 7
    clients: int = 200
    events_per_day: int = 2_000  # on a usual weekday; weekends have half
    timezone: str = "Europe/Moscow"

    @property
    def end(self) -> date:
        """The first day that is out."""
        return self.start + timedelta(days=self.days)

    @property
    def quiet_day(self) -> date | None:
        """The one day on which nothing happens; a world of one or two days has none."""
        if self.days < _SMALLEST_WITH_QUIET_DAY:
            return None
        return self.start + timedelta(days=self.days // 2)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The business zone."""
        return ZoneInfo(self.timezone)

    def midnight(self, day: int) -> datetime:
        """Return the instant (UTC) at which a day begins, counted from the start."""
        begin = self.start + timedelta(days=day)
        return datetime.combine(begin, time(), self.zone).astimezone(UTC)

    @property
    def client_records(self) -> tuple[ServedRecord, ...]:
        """All versions of all clients in serving order, each with its `visible_at`."""
        return self._clientele.records

    @property
    def events(self) -> Iterator[TelemetryEvent]:
        """All events, made a day at a time: memory is a day's, however long the world."""
        return (arrival.event for arrival in self.arrivals())

    def arrivals(self) -> Iterator[Arrival]:
        """Yield all events with their `arrives_at`: ordered by it within each day of origin."""
        return chain.from_iterable(
            self.day(self.start + timedelta(days=number)) for number in range(self.days)
        )

    def day(self, day: date) -> list[Arrival]:
        """Make the events that originate on one day, most of them with an event_ts on it."""
        if day == self.quiet_day:
            return []
        ends_dead = day + timedelta(days=1) == self.quiet_day
        made = Day(self.seed, day, self.zone, ends_dead)
        return make_day(made, self._clientele.accounts, self.events_per_day)

    def until(self, instant: datetime, *, since: datetime | None = None) -> Sight:
        """Return what the sources show at `instant`, or what has come after `since` up to it."""
        since = since or datetime.min.replace(tzinfo=UTC)
        return Sight(
            records=[
                served.record
                for served in self.client_records
                if since < served.visible_at <= instant
            ],
            events=[
                arrival.event
                for arrival in self.arrivals()
                if since < arrival.arrives_at <= instant
            ],
        )

    @cached_property
    def _clientele(self) -> Clientele:
        return make_clientele(self.seed, self.midnight(0), self.days, self.clients, self.zone)
