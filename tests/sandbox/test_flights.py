"""The real flights: all there, and their hour is the instant that the data's own UTC says."""

from collections import Counter
from datetime import UTC, date, datetime

import pytest

from sandbox import flights as source
from sandbox.flights import airlines, flights
from sandbox.telemetry import TelemetryEvent


@pytest.fixture(scope="module")
def year() -> list[TelemetryEvent]:
    return list(flights())


def test_all_flights_are_there(year: list[TelemetryEvent]) -> None:
    assert len(year) == 336_776
    assert Counter(event["status"] for event in year) == {"ok": 328_521, "error": 8_255}
    assert {event["event_type"] for event in year} == {"EWR", "JFK", "LGA"}
    assert sum(event["duration_ms"] is None for event in year) == 9_430
    assert sum(event["session_id"] is None for event in year) == 2_512
    assert "event_id" not in year[0]


def test_the_first_one_in_full(year: list[TelemetryEvent]) -> None:
    assert year[0] == {
        "client_id": "UA",
        "event_type": "EWR",
        "duration_ms": 11,
        "status": "ok",
        "session_id": "N14228",
        "event_ts": datetime(2013, 1, 1, 10, 0, tzinfo=UTC),  # five in the morning, New York
        "event_date": date(2013, 1, 1),
    }


def test_instants_are_those_of_the_data(year: list[TelemetryEvent]) -> None:
    with source._rows() as rows:
        column = next(rows).index("time_hour")
        pairs = {(event["event_ts"], row[column]) for event, row in zip(year, rows, strict=True)}
    assert len(pairs) == 6_936  # hours in which a flight was due, each read in one way only
    assert all(f"{ours:%Y-%m-%dT%H:%M:%SZ}" == theirs for ours, theirs in pairs)


def test_a_range_is_half_open_in_new_york_days(year: list[TelemetryEvent]) -> None:
    start, end = date(2013, 3, 9), date(2013, 3, 12)  # clocks went forward on the 10th
    chosen = list(flights(start, end))
    assert chosen == [event for event in year if start <= _day(event) < end]
    assert {_day(event) for event in chosen} == {date(2013, 3, day) for day in (9, 10, 11)}


def _day(event: TelemetryEvent) -> date:
    assert event["event_ts"] is not None
    return event["event_ts"].astimezone(source._NEW_YORK).date()


def test_airlines_are_clients_from_before_the_first_flight(year: list[TelemetryEvent]) -> None:
    clients = airlines()
    assert len(clients) == 16
    assert {client["id"] for client in clients} == {event["client_id"] for event in year}
    assert all(client["created_at"] == client["updated_at"] < "2013" for client in clients)
    assert {client["segment"] for client in clients} == {"large", "medium", "small"}
