"""The mistakes of earlier pipelines about which day a run is for; the DAG's part comes with the DAG."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sandbox.telemetry import insert_events
from tests.support.vitrina import Vitrina

DAY = date(2024, 12, 5)
MOSCOW = ZoneInfo("Europe/Moscow")


def three_days_of_noons(vitrina: Vitrina) -> None:
    """An event on the day before, two on the day, three on the day after."""
    for shift, count in ((-1, 1), (0, 2), (1, 3)):
        noon = datetime(2024, 12, 5, 12, tzinfo=MOSCOW) + timedelta(days=shift)
        events = [{"client_id": "c", "event_ts": noon} for _ in range(count)]
        insert_events(vitrina.outside.telemetry_url, events)  # type: ignore[arg-type]


def test_mistake_t01_no_step_takes_its_day_from_the_clock(vitrina: Vitrina) -> None:
    """Landing, plan and models of a day years ago agree on it, and landing guesses none."""
    three_days_of_noons(vitrina)
    assert vitrina.run("telemetry").status == 2
    assert vitrina.nightly(DAY) == [DAY - timedelta(days=1), DAY]
    found = vitrina.query("select ds, events_cnt from marts.dm_client_telemetry order by ds")
    assert [(row["ds"], row["events_cnt"]) for row in found] == [(date(2024, 12, 4), 1), (DAY, 2)]


def test_mistake_t02_a_day_means_itself_and_is_subtracted_nowhere(vitrina: Vitrina) -> None:
    """[D, D+1) is D for landing (without its look-back) and for the models alike."""
    three_days_of_noons(vitrina)
    exact = Vitrina(vitrina.outside, vitrina.project, {"TELEMETRY_LOOKBACK_DAYS": "0"})
    assert exact.ingest("telemetry", "--date", str(DAY))["days_changed"] == [str(DAY)]
    landed = exact.query("select ds, count(*) as rows from raw.telemetry_events group by ds")
    assert landed == [{"ds": DAY, "rows": 2}]
    exact.build([DAY])
    found = exact.query("select ds, events_cnt from marts.dm_client_telemetry")
    assert found == [{"ds": DAY, "events_cnt": 2}]
