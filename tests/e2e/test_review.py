"""What a hostile reviewer found, each with the test that names it."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sandbox.telemetry import insert_events
from tests.support.vitrina import Vitrina


def test_another_zone_is_refused_and_nothing_is_doubled(vitrina: Vitrina) -> None:
    """One event is in one day: in Moscow's 5 December, or in UTC's 4th, not in both."""
    at = datetime(2024, 12, 4, 22, tzinfo=UTC)
    insert_events(vitrina.outside.telemetry_url, [{"client_id": "c", "event_ts": at}])
    vitrina.ingest("telemetry", "--date", "2024-12-05")
    other = Vitrina(vitrina.outside, vitrina.project, {"BUSINESS_TIMEZONE": "UTC"})
    refused = other.run("telemetry", "--date", "2024-12-04")
    assert refused.status == 2
    assert "Europe/Moscow" in refused.log
    assert vitrina.query("select ds from raw.telemetry_events") == [{"ds": date(2024, 12, 5)}]
    built = other.dbt("run", "--select", "tag:telemetry")
    assert not built.success
    assert "Europe/Moscow" in " ".join(built.failures())


def test_after_a_failed_night_bare_marks_catch_up(vitrina: Vitrina) -> None:
    """A plan whose build failed must not stay the oldest one for ever."""
    for day in (4, 5, 6):
        at = datetime(2024, 12, day, 12, tzinfo=UTC)
        insert_events(vitrina.outside.telemetry_url, [{"client_id": "c", "event_ts": at}])
        vitrina.ingest("telemetry", "--date", f"2024-12-0{day}")
        vitrina.ingest("plan", "telemetry")
        if day > 4:  # the build of the 4th failed
            marked = vitrina.ingest("mark", "telemetry")
    assert marked["pending"] == []


def test_the_databases_defaults_do_not_matter(vitrina: Vitrina) -> None:
    """DateStyle and isolation of the database: the driver reads one of them, waiting needs the other."""
    database = vitrina.outside.warehouse
    vitrina.query(f"alter database {database} set datestyle to 'SQL, DMY'")
    vitrina.query(f"alter database {database} set default_transaction_isolation to 'serializable'")
    at = datetime(2024, 12, 4, 12, tzinfo=UTC)
    insert_events(vitrina.outside.telemetry_url, [{"client_id": "c", "event_ts": at}])
    vitrina.outside.crm.serve([{"id": "c", "created_at": "2024-12-01T00:00:00Z"}])
    vitrina.land(date(2024, 12, 4), date(2024, 12, 5))
    assert vitrina.build_pending() == [date(2024, 12, 4)]
    rows = vitrina.query("select client_id from marts.dm_client_telemetry")
    assert [row["client_id"] for row in rows] == ["c"]
