"""Windows, where days begin, and sets of days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.days import DayRanges, Window, business_day, day_start
from ingestion.errors import UsageError
from tests.ingestion.scene import DEC, at

MICROSECOND = timedelta(microseconds=1)
MOSCOW = ZoneInfo("Europe/Moscow")


def test_window_is_half_open() -> None:
    assert list(Window(DEC[30], date(2025, 1, 2))) == [DEC[30], DEC[31], date(2025, 1, 1)]
    assert list(Window.of_day(DEC[8])) == [DEC[8]]
    assert str(Window.of_day(DEC[8])) == "[2024-12-08, 2024-12-09)"


@pytest.mark.parametrize("end", [DEC[8], DEC[7]])
def test_window_without_a_day_is_wrong_use(end: date) -> None:
    with pytest.raises(UsageError, match="holds no day"):
        Window(DEC[8], end)


def test_window_ends_with_the_calendar() -> None:
    with pytest.raises(UsageError, match="no day after"):
        Window.of_day(date.max)
    with pytest.raises(UsageError, match="no 3 days before"):
        Window.of_day(date(1, 1, 3)).extended_back(3)
    with pytest.raises(UsageError):
        Window.of_day(DEC[8]).extended_back(10**12)


def test_window_extended_back() -> None:
    assert Window.of_day(DEC[8]).extended_back(3) == Window(DEC[5], DEC[9])
    assert Window.of_day(DEC[8]).extended_back(0) == Window.of_day(DEC[8])


@pytest.mark.parametrize(
    ("zone", "day", "start"),
    [
        ("Europe/Moscow", "2024-12-08", "2024-12-07T21:00"),
        ("Europe/Moscow", "2014-10-26", "2014-10-25T20:00"),  # still +04
        ("Europe/Moscow", "2014-10-27", "2014-10-26T21:00"),  # after a day of 25 hours
        ("America/New_York", "2024-03-10", "2024-03-10T05:00"),
        ("America/New_York", "2024-03-11", "2024-03-11T04:00"),  # 23 hours
        ("America/New_York", "2024-11-03", "2024-11-03T04:00"),
        ("America/New_York", "2024-11-04", "2024-11-04T05:00"),  # 25 hours
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00"),  # there is no midnight
        ("America/Havana", "2024-11-03", "2024-11-03T04:00"),  # two midnights: the first
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00"),  # a day that never was
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00"),
        ("Asia/Kolkata", "2024-12-08", "2024-12-07T18:30"),
    ],
)
def test_day_start(zone: str, day: str, start: str) -> None:
    assert day_start(date.fromisoformat(day), ZoneInfo(zone)) == at(start)


def test_day_start_before_the_calendar_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="0001-01-01"):
        day_start(date.min, MOSCOW)


@given(
    zone=st.sampled_from(["Europe/Moscow", "America/New_York", "Europe/London", "Asia/Kolkata"]),
    day=st.dates(date(1995, 1, 1), date(2035, 1, 1)),
)
def test_a_day_begins_where_the_one_before_it_ends(zone: str, day: date) -> None:
    start = day_start(day, ZoneInfo(zone))
    assert start.tzinfo is UTC
    assert business_day(start, ZoneInfo(zone)) == day
    assert business_day(start - MICROSECOND, ZoneInfo(zone)) == day - timedelta(days=1)


def test_business_day_at_the_ends_of_the_calendar() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    first = datetime.min.replace(tzinfo=UTC)
    assert business_day(last, MOSCOW) == date.max
    assert business_day(first, ZoneInfo("America/New_York")) == date.min


# --- sets of days ------------------------------------------------------------------------------

DAYS = [DEC[1] + timedelta(days=n) for n in range(50)]
Range = tuple[date, date | None]


@st.composite
def some_ranges(draw: st.DrawFn) -> list[Range]:
    start = st.integers(0, 40)
    length = st.one_of(st.none(), st.integers(-3, 8))
    drawn = draw(st.lists(st.tuples(start, length), max_size=8))
    return [(DAYS[s], None if n is None else DAYS[s] + timedelta(days=n)) for s, n in drawn]


def naive(ranges: Sequence[Range]) -> set[date]:
    return {d for d in DAYS for s, e in ranges if s <= d and (e is None or d < e)}


@given(some_ranges())
def test_ranges_are_the_set_of_their_days(ranges: list[Range]) -> None:
    expected = naive(ranges)
    merged = DayRanges.merged(ranges)
    assert {day for day in DAYS if day in merged} == expected
    assert list(merged.among(DAYS)) == sorted(expected)
    assert list(merged.among(DAYS[::3])) == [day for day in DAYS[::3] if day in expected]
    for (_, end), (start, _) in zip(merged.ranges, merged.ranges[1:], strict=False):
        assert end is not None
        assert end < start  # sorted, disjoint, and not even touching
    assert DayRanges.from_json(merged.to_json()) == merged


@given(st.sets(st.sampled_from(DAYS)))
def test_ranges_of_days(days: set[date]) -> None:
    ranges = DayRanges.of_days(days)
    assert set(ranges.among(DAYS)) == days


def test_ranges_as_json() -> None:
    ranges = DayRanges.merged([(DEC[11], None), (DEC[5], DEC[9]), (DEC[7], DEC[8])])
    assert ranges.to_json() == [["2024-12-05", "2024-12-09"], ["2024-12-11", None]]
