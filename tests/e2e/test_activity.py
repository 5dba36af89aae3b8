"""Seven days of a social app from its ClickHouse to the mart, cell by cell against the oracle."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.dbt import Project
from sandbox.feed import SPELLINGS, FeedServer
from sandbox.social import SocialApp
from tests.oracle.activity import rejected
from tests.support.activity import Activity
from tests.support.vitrina import Vitrina

APP = SocialApp(seed=5, start=date(2024, 12, 2), days=7)
DAYS = [APP.start + timedelta(days=n) for n in range(APP.days)]
ACTIONS = list(APP.all_actions())
MESSAGES = list(APP.all_messages())


@pytest.fixture(params=["postgres", "clickhouse"])
def activity(request: pytest.FixtureRequest, vitrina: Vitrina, feed: FeedServer) -> Activity:
    """A warehouse right after `init`, and an empty feed."""
    if request.param == "postgres":
        return Activity.of(vitrina, feed)
    project = request.getfixturevalue("clickhouse_project")
    return Activity.on_clickhouse(vitrina, project, feed.server, feed)


@pytest.fixture
def week(activity: Activity) -> Activity:
    """A feed that holds all of the week, nothing landed."""
    activity.show(ACTIONS, MESSAGES)
    return activity


def test_a_week_at_once_with_all_tests(week: Activity) -> None:
    landed = week.land(APP.start, APP.end)
    assert landed["days_changed"] == [str(day) for day in DAYS]
    done = week.vitrina.dbt("build", "--select", "tag:activity")
    assert done.success, done.failures()
    assert week.wrong_cells(ACTIONS, MESSAGES) == []


def test_each_day_twice(week: Activity) -> None:
    for day in DAYS:
        assert week.nightly(day) == [day]
        before = week.tables()
        assert week.nightly(day) == []
        week.build([day])
        assert week.tables() == before
    assert week.wrong_cells(ACTIONS, MESSAGES) == []
    week.build([DAYS[2]], "--full-refresh")
    assert week.tables() == before


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_days_in_random_order(week: Activity, seed: int) -> None:
    """A day that lands before its past is built again when that comes: attributes are carried on."""
    days = [*DAYS, DAYS[1]]
    random.Random(seed).shuffle(days)
    for day in days:
        week.nightly(day)
    assert week.wrong_cells(ACTIONS, MESSAGES) == []


def test_windows_in_any_order_without_a_plan(week: Activity) -> None:
    """The tables are a function of what has landed and of the window alone."""
    week.land(APP.start, APP.end)
    for days in [DAYS[4:6], [DAYS[0], DAYS[6]], DAYS[1:3], [DAYS[3]]]:
        week.build(days)
    assert week.wrong_cells(ACTIONS, MESSAGES) == []


def test_late_rows_change_every_later_day(week: Activity) -> None:
    """Rows of the second day that come after the week was built: other attributes, a new user."""
    week.land(APP.start, APP.end)
    assert week.build_pending() == DAYS
    moment = datetime(2024, 12, 3, 20, 59, 59, tzinfo=UTC)
    receiver = next(user.id for user in APP.everybody if not user.reads and not user.writes)
    late = [
        {"user_id": receiver, "action": "view", "time": moment, "os": "Symbian", "age": 77},
        {"user_id": 5, "action": "like", "time": moment, "os": "iOS", "gender": 1},
    ]
    week.show(late)
    week.land(DAYS[1])
    assert week.build_pending() == DAYS[1:]
    assert week.wrong_cells([*ACTIONS, *map(filled, late)], MESSAGES) == []
    found = [row["ds"] for row in week.fact() if row["os"] == "Symbian"]
    assert len(found) > 1, "the user who only receives carries it on"


def test_a_day_that_the_source_lost_is_emptied(week: Activity) -> None:
    week.land(APP.start, APP.end)
    week.build_pending()
    for table in "feed_actions", "message_actions":
        week.feed.ask(
            f"alter table {table} delete where toDate(time, 'Europe/Moscow') = '{DAYS[3]}'"
            " settings mutations_sync = 2"
        )
    assert week.land(DAYS[3])["rows_landed"] == 0
    assert week.build_pending() == DAYS[3:]
    rest = [row for row in ACTIONS if ds_of(row) != DAYS[3]]
    assert week.wrong_cells(rest, [row for row in MESSAGES if ds_of(row) != DAYS[3]]) == []


def test_two_extractions_side_by_side(week: Activity) -> None:
    """A process a table, as the DAG runs them: neither waits for the other, both are planned."""
    window = ("--start-date", str(APP.start), "--end-date", str(APP.end))
    both = [
        week.vitrina.process("-m", "ingestion", "feed", *window, "--table", table)
        for table in ("feed_actions", "message_actions")
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert week.build_pending() == DAYS
    assert week.wrong_cells(ACTIONS, MESSAGES) == []


@pytest.mark.parametrize(
    ("spellings", "types"),
    [
        (SPELLINGS[1:], {"time": "DateTime64(3, 'America/New_York')", "user_id": "Int64"}),
        (SPELLINGS, {"time": "DateTime('UTC')", "age": "String", "gender": "Nullable(String)"}),
        (SPELLINGS[:1], {"time": "String", "receiver_id": "String", "reciever_id": "UInt64"}),
    ],
)
def test_tables_of_other_types_and_either_spelling(
    activity: Activity, spellings: tuple[str, ...], types: dict[str, str]
) -> None:
    both = spellings == SPELLINGS
    app = SocialApp(seed=6, start=DAYS[0], days=2, users=50, both_spellings=both)
    is_text = types["time"] == "String"
    actions = [as_source(row, is_text) for row in app.all_actions()]
    messages = [as_source(row, is_text) for row in app.all_messages()]
    activity.feed.create(spellings, types)
    activity.show(actions, messages)
    activity.land(app.start, app.end)
    activity.build()
    assert activity.wrong_cells(actions, messages) == []


@pytest.mark.parametrize("types", [{}, {"time": "String", "age": "String", "user_id": "UInt64"}])
def test_tables_in_the_warehouses_own_server_are_read_where_they_are(
    vitrina: Vitrina, feed: FeedServer, tmp_path: Path, types: dict[str, str]
) -> None:
    """Nothing is copied; `feed` tells the ledger what there is, so that plan and mark work."""
    project = Project(target_path=tmp_path)
    where = {"FEED_CLICKHOUSE_URL": "", "FEED_CLICKHOUSE_DB": feed.database}
    activity = Activity.on_clickhouse(vitrina, project, feed.server, feed, **where)
    app = SocialApp(seed=7, start=DAYS[0], days=3, users=60)
    actions = [as_source(row, is_text=bool(types)) for row in app.all_actions()]
    messages = [as_source(row, is_text=bool(types)) for row in app.all_messages()]
    feed.create(SPELLINGS[1:], types)
    activity.show(actions, messages)
    landed = activity.land(app.start, app.end)
    assert activity.query("select count() as n from raw.feed_actions") == [{"n": 0}]
    assert landed["quarantined"] == len(rejected(actions, messages)[0])
    assert activity.build_pending() == DAYS[:3]
    assert activity.wrong_cells(actions, messages) == []
    assert activity.land(app.start, app.end)["days_changed"] == []
    late = as_source(filled({"user_id": 9, "action": "like", "time": app_noon(1)}), bool(types))
    activity.show([late])
    activity.land(DAYS[1])
    assert activity.build_pending() == DAYS[1:3]
    assert activity.wrong_cells([*actions, late], messages) == []
    # As a person does it, with the tests of the models.
    done = activity.vitrina.dbt("build", "--select", "tag:activity")
    assert done.success, done.failures()


def app_noon(number: int) -> datetime:
    """Noon, in UTC, of a day of the week."""
    return datetime.combine(DAYS[number], time(12), UTC)


def test_nothing_landed_builds_empty_tables(activity: Activity) -> None:
    done = activity.vitrina.dbt("build", "--select", "tag:activity")
    assert done.success, done.failures()
    assert activity.mart() == []
    assert activity.build_pending() == []


def ds_of(row: dict[str, Any]) -> date:
    """The business day of a row."""
    day: date = row["time"].astimezone(APP.zone).date()
    return day


def filled(row: dict[str, Any]) -> dict[str, Any]:
    """The same with a null in each column that it does not name."""
    return {"os": None, "gender": None, "age": None, **row}


def as_source(row: dict[str, Any], is_text: bool) -> dict[str, Any]:
    """Its time as text, without a zone or with one, where the source has texts."""
    if not is_text:
        return row
    offset = timedelta(hours=row["user_id"] % 3)
    text = (row["time"].replace(tzinfo=None) + offset).isoformat()
    return {**row, "time": f"{text}+{offset.seconds // 3600:02d}:00" if offset else text}
