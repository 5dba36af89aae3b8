"""The made-up world: the same for a seed, and each oddity that it promises is in it."""

import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest

from sandbox.clients import HOSTILE_TEXT, ServedRecord
from sandbox.events import Arrival
from sandbox.telemetry import TelemetryEvent
from sandbox.world import World

ROOT = Path(__file__).parents[2]
START = date(2024, 12, 2)  # a Monday

DIGEST = """
import hashlib
from datetime import date
from sandbox.world import World
world = World(seed=SEED, start=date(2024, 12, 2), days=4, events_per_day=500)
digest = hashlib.sha256()
for seen in (*world.client_records, *world.arrivals()):
    digest.update(repr(seen).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=7, start=START)


@pytest.fixture(scope="module")
def arrivals(world: World) -> list[Arrival]:
    return list(world.arrivals())


@pytest.fixture(scope="module")
def events(arrivals: list[Arrival]) -> list[TelemetryEvent]:
    return [arrival.event for arrival in arrivals]


def business_day(world: World, event: TelemetryEvent) -> date | None:
    moment = event["event_ts"]
    return moment.astimezone(world.zone).date() if moment else None


def instant(stamp: str) -> datetime:
    read = datetime.fromisoformat(stamp)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def test_the_same_seed_gives_the_same_bytes_in_any_process() -> None:
    def digest(seed: int, hash_seed: str, timezone: str) -> str:
        made = subprocess.run(
            [sys.executable, "-c", DIGEST.replace("SEED", str(seed))],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "TZ": timezone},
            capture_output=True,
            text=True,
            check=True,
        )
        return made.stdout

    assert digest(1, "1", "UTC") == digest(1, "2", "Asia/Tokyo") != digest(2, "1", "UTC")


def test_a_day_is_the_same_made_alone(arrivals: list[Arrival]) -> None:
    alone = World(seed=7, start=START).day(START + timedelta(days=5))
    begin = arrivals.index(alone[0])
    assert arrivals[begin : begin + len(alone)] == alone


@pytest.mark.parametrize("seed", range(3))
def test_every_oddity_of_events_is_there(seed: int) -> None:
    # The smallest world worth the name: rare things must not be left to luck.
    world = World(seed=seed, start=START, days=4, clients=30, events_per_day=200)
    events = list(world.events)
    known = {served.record.get("id") for served in world.client_records}

    def some(is_so: Callable[[TelemetryEvent], bool]) -> bool:
        return any(map(is_so, events))

    for column in ("event_id", "client_id", "session_id", "duration_ms", "event_ts"):
        assert some(lambda event, column=column: event.get(column) is None), column  # type: ignore[misc]
    for status in ("ok", "error", "timeout", "Error"):
        assert some(lambda event, status=status: event["status"] == status), status  # type: ignore[misc]
    assert some(lambda event: event["session_id"] == "")
    assert some(lambda event: (event["duration_ms"] or 0) <= 0 and event["duration_ms"] is not None)
    assert some(lambda event: event["client_id"] not in known | {None})
    assert some(lambda event: event["event_date"] != business_day(world, event))
    assert world.quiet_day not in {business_day(world, event) for event in events}

    by_id: dict[str, list[TelemetryEvent]] = defaultdict(list)
    for event in events:
        if event["event_id"] is not None:
            by_id[event["event_id"]].append(event)
    repeated = [versions for versions in by_id.values() if len(versions) > 1]
    assert any(one == other for one, other in repeated)  # exact duplicates
    assert any(
        one["event_ts"] != other["event_ts"]
        and one["duration_ms"] != other["duration_ms"]
        and business_day(world, one) == business_day(world, other)
        for one, other in repeated
    )
    assert any(
        one["event_ts"] == other["event_ts"] and one["duration_ms"] != other["duration_ms"]
        for one, other in repeated
    )
    anonymous = Counter(tuple(e.items()) for e in events if e["event_id"] is None)
    assert max(anonymous.values()) > 1  # duplicates that can't be told to be any


def test_an_event_is_sent_again_on_the_next_day(world: World, events: list[TelemetryEvent]) -> None:
    days: dict[str, set[date | None]] = defaultdict(set)
    for event in events:
        if event["event_id"] is not None:
            days[event["event_id"]].add(business_day(world, event))
    assert any(len(on) == 2 for on in days.values())


def test_events_arrive_mostly_soon_and_some_late(arrivals: list[Arrival]) -> None:
    late = [
        arrival.arrives_at - arrival.event["event_ts"]
        for arrival in arrivals
        if arrival.event["event_ts"] is not None
    ]
    assert min(late) > timedelta(0)
    assert sum(delay < timedelta(minutes=1) for delay in late) > 0.9 * len(late)
    assert any(timedelta(hours=1) < delay < timedelta(hours=12) for delay in late)
    assert any(timedelta(days=1) < delay for delay in late)
    assert max(late) < timedelta(days=3)  # the look-back that finds them


def test_latencies_have_a_long_tail_and_errors_come_in_bursts(
    events: list[TelemetryEvent],
) -> None:
    latencies = sorted(event["duration_ms"] for event in events if event["duration_ms"] is not None)
    assert mean(latencies) > 1.5 * median(latencies)
    assert latencies[int(len(latencies) * 0.99)] > 10 * median(latencies)
    hours: dict[object, list[bool]] = defaultdict(list)
    for event in events:
        if event["event_ts"] is not None:
            hour = event["event_ts"].replace(minute=0, second=0, microsecond=0)
            hours[hour].append(event["status"] == "error")
    shares = [mean(errors) for errors in hours.values() if len(errors) > 50]
    assert max(shares) > 0.15
    assert median(shares) < 0.03


def test_days_and_weeks_have_a_rhythm(world: World, events: list[TelemetryEvent]) -> None:
    moments = [e["event_ts"].astimezone(world.zone) for e in events if e["event_ts"]]
    hours = Counter(moment.hour for moment in moments)
    assert sum(hours[hour] for hour in range(9, 18)) > 10 * sum(hours[hour] for hour in range(5))
    days = Counter(moment.date() for moment in moments)
    weekend = {START + timedelta(days=5), START + timedelta(days=6)}
    workdays = set(days) - weekend - {world.end}
    assert max(days[day] for day in weekend) < min(days[day] for day in workdays)
    assert len(days - Counter({world.end: days[world.end]})) == world.days - 1  # one is quiet


def test_sessions_belong_to_one_client_and_begin_with_a_login(events: list[TelemetryEvent]) -> None:
    sessions: dict[str, list[TelemetryEvent]] = defaultdict(list)
    for event in events:
        if event["session_id"] and event["event_ts"] and event["client_id"]:
            sessions[event["session_id"]].append(event)
    assert 4 < mean(map(len, sessions.values())) < 12
    first = [min(session, key=_when) for session in sessions.values()]
    assert sum(event["event_type"] == "login" for event in first) > 0.9 * len(first)


def _when(event: TelemetryEvent) -> datetime:
    assert event["event_ts"] is not None
    return event["event_ts"]


@pytest.mark.parametrize("seed", range(3))
def test_every_oddity_of_clients_is_there(seed: int) -> None:
    world = World(seed=seed, start=START, days=7, clients=60)
    served = world.client_records
    shown = [s for s in served if s.visible_at <= world.midnight(world.days)]
    records = [s.record for s in shown]
    versions: dict[str, list[ServedRecord]] = defaultdict(list)
    for one in shown:
        if one.record.get("id") and one.record["updated_at"]:
            versions[one.record["id"]].append(one)

    def changed(column: str) -> bool:
        return any(len({v.record[column] for v in life}) > 1 for life in versions.values())

    assert [s.visible_at for s in served] == sorted(s.visible_at for s in served)
    assert all(map(changed, ("segment", "plan", "country")))
    assert any(
        r.get("created_at") and instant(r["created_at"]) > world.midnight(0) for r in records
    )
    assert any(r["updated_at"] is None and r["created_at"] for r in records)
    assert any(r["updated_at"] is None and r["created_at"] is None for r in records)
    assert any("id" in r and r["id"] is None for r in records)
    assert any("id" not in r for r in records)
    assert any(r["segment"] is None and r["country"] == "" for r in records)
    assert any(r["segment"] == HOSTILE_TEXT for r in records)
    assert any(
        r["updated_at"] and r["created_at"] and instant(r["updated_at"]) < instant(r["created_at"])
        for r in records
    )
    assert any(records.count(r) > 1 for r in records)  # served again
    neighbours = [pair for life in versions.values() for pair in pairwise(life)]
    assert any(
        _same_instant(a, b) and a.visible_at == b.visible_at and a.record != b.record
        for a, b in neighbours
    )
    assert any(_instant(b) < _instant(a) for a, b in neighbours)  # late
    for one in shown:  # ... but never so late that a day's overlap misses it
        if one.record["updated_at"] and one.visible_at > world.midnight(0):
            again = sum(one.record == other for other in records) > 1
            assert again or one.visible_at - _instant(one) < timedelta(days=1)


def _instant(served: ServedRecord) -> datetime:
    return instant(served.record["updated_at"])


def _same_instant(one: ServedRecord, other: ServedRecord) -> bool:
    return _instant(one) == _instant(other)


def test_instants_are_spelled_in_several_ways(world: World) -> None:
    stamps = [served.record["created_at"] for served in world.client_records]
    said = [stamp for stamp in stamps if stamp]
    assert any(stamp.endswith("+03:00") for stamp in said)
    assert any(stamp.endswith(".000000Z") for stamp in said)
    assert any(len(stamp) == len("2024-12-08T00:00:00") for stamp in said)


def test_until_shows_what_had_come_by_then(world: World, arrivals: list[Arrival]) -> None:
    noon = world.midnight(3) + timedelta(hours=12)
    seen = world.until(noon)
    assert len(seen.events) == sum(arrival.arrives_at <= noon for arrival in arrivals)
    since = world.until(world.midnight(30), since=noon)
    assert Counter(map(_key, seen.events + since.events)) == Counter(
        _key(arrival.event) for arrival in arrivals
    )
    assert seen.records + since.records == [served.record for served in world.client_records]


def _key(event: TelemetryEvent) -> tuple[Any, ...]:
    return tuple(event.values())


def test_midnights_are_those_of_the_business_zone() -> None:
    world = World(seed=1, start=date(2024, 3, 30), days=3, timezone="Europe/Berlin")
    hours = [
        (world.midnight(day + 1) - world.midnight(day)) / timedelta(hours=1) for day in range(3)
    ]
    assert hours == [24, 23, 24]
    assert world.end == date(2024, 4, 2)
    assert World(seed=1, start=START, days=2).quiet_day is None
