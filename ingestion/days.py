"""Business days: windows of them, where they begin, and sets of them that may be open to the right."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import MINYEAR, UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ingestion.errors import UsageError

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """Half-open range of business days: `start` is in, `end` is out.

    Raises UsageError when it holds no day.
    """

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise UsageError(
                f"the window [{self.start}, {self.end}) holds no day: the end is exclusive, "
                "so one day D is --date D, or --start-date D --end-date D+1"
            )

    @classmethod
    def of_day(cls, day: date) -> Window:
        """The window [day, day + 1). Raises UsageError for the calendar's last day, which has no end."""
        if day == date.max:
            raise UsageError(f"{day} has no day after it")
        return cls(day, day + DAY)

    def __iter__(self) -> Iterator[date]:
        day = self.start
        while day < self.end:
            yield day
            day += DAY

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"

    def extended_back(self, days: int) -> Window:
        """The same window with `days` more before it."""
        try:
            return Window(self.start - timedelta(days=days), self.end)
        except OverflowError as error:
            raise UsageError(f"there are no {days} days before {self.start}") from error


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a business day, in UTC."""
    # fold=0 takes the earlier of two midnights, where clocks go back over one.
    local = datetime.combine(day, time.min, tzinfo=zone)
    try:
        return local.astimezone(UTC)
    except OverflowError as error:
        raise UsageError(f"the day {day} does not begin within the calendar in UTC") from error


def business_day(instant: datetime, zone: ZoneInfo) -> date:
    """The business day in which an aware instant lies; at the calendar's ends the first or last."""
    try:
        return instant.astimezone(zone).date()
    except OverflowError:
        return date.min if instant.year == MINYEAR else date.max


@dataclass(frozen=True)
class DayRanges:
    """A set of days as sorted, disjoint half-open ranges; an end of None is open to the right."""

    ranges: tuple[tuple[date, date | None], ...] = ()

    @classmethod
    def merged(cls, ranges: Iterable[tuple[date, date | None]]) -> DayRanges:
        """The union of half-open ranges; empty ones (end <= start) vanish."""
        merged: list[tuple[date, date | None]] = []
        for start, end in sorted(ranges, key=lambda r: (r[0], r[1] or date.max)):
            if end is not None and end <= start:
                continue
            if merged:
                last_start, last_end = merged[-1]
                if last_end is None or start <= last_end:
                    # One end may be open: it swallows the other.
                    joined = None if last_end is None or end is None else max(last_end, end)
                    merged[-1] = (last_start, joined)
                    continue
            merged.append((start, end))
        return cls(tuple(merged))

    @classmethod
    def of_days(cls, days: Iterable[date]) -> DayRanges:
        """The ranges that hold exactly these days."""
        return cls.merged((day, day + DAY) for day in days)

    def __contains__(self, day: date) -> bool:
        return any(start <= day and (end is None or day < end) for start, end in self.ranges)

    def among(self, days: Sequence[date]) -> Iterator[date]:
        """Those of some sorted days that are in the set."""
        for start, end in self.ranges:
            last = len(days) if end is None else bisect_left(days, end)
            yield from days[bisect_left(days, start) : last]

    def to_json(self) -> list[list[str | None]]:
        """`[["2024-12-05", "2024-12-09"], ["2024-12-11", null]]`."""
        return [[start.isoformat(), end.isoformat() if end else None] for start, end in self.ranges]

    @classmethod
    def from_json(cls, ranges: Iterable[Iterable[str | None]]) -> DayRanges:
        """The inverse of to_json."""
        return cls.merged(
            (date.fromisoformat(str(start)), None if end is None else date.fromisoformat(end))
            for start, end in ranges
        )
