"""A month of real flights as telemetry, in New York's zone, against the oracle."""

from __future__ import annotations

from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest

from sandbox import flights
from sandbox.dbt import Project
from sandbox.outside import outside
from sandbox.postgres import PostgresServer
from sandbox.telemetry import insert_events
from tests.oracle.telemetry import client_telemetry, differences
from tests.support.vitrina import Vitrina

# The month in which New York's clocks go forward (the 10th, a day of 23 hours).
START, END = date(2013, 3, 1), date(2013, 4, 1)
DAYS = [START + timedelta(days=n) for n in range((END - START).days)]


@pytest.fixture
def airport(server: PostgresServer, project: Project) -> object:
    """Sources with the month's flights and days around it; the table has no event_id."""
    with outside(server, event_id=False) as world:
        vitrina = Vitrina(world, project, {"BUSINESS_TIMEZONE": flights.TIMEZONE})
        vitrina.ingest("init")
        world.crm.serve(flights.airlines())
        around = timedelta(days=5)
        insert_events(world.telemetry_url, flights.flights(START - around, END + around))
        yield vitrina


def test_a_month_of_flights(airport: Vitrina) -> None:
    airport.land(START, END)
    airport.build(DAYS)
    expected = client_telemetry(
        flights.airlines(), flights.flights(START, END), ZoneInfo(flights.TIMEZONE), DAYS
    )
    assert differences(expected, airport.mart()) == []
    # Independent of the oracle too: the numbers of the Bureau of Transportation Statistics.
    total = airport.query(
        "select sum(events_cnt) as n, sum(errors_cnt) as errors from marts.dm_client_telemetry"
    )
    assert [(int(row["n"]), int(row["errors"])) for row in total] == [(28_834, 861)]
