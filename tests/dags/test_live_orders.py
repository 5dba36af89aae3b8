"""The orders' DAGs on real Airflow processes: a catch-up over days of which one is not there yet, and
a report that is waited for in the triggerer. After each the tables are the oracle's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from ingestion.days import DAY
from sandbox.airflow import airflow
from sandbox.delivery import Delivery
from sandbox.outside import Outside
from sandbox.reports import Settings
from sandbox.shop import Shop
from tests.dags.live import SETTINGS, Live, wait_for
from tests.oracle import orders as oracle
from tests.support.orders import CHECKED, known

MOSCOW = ZoneInfo("Europe/Moscow")
# The newest day whose interval has ended: that of D does at 03:00 of the day after.
LAST = (datetime.now(MOSCOW) - timedelta(hours=27)).date()
FIRST = LAST - 3 * DAY
ABSENT = LAST - DAY
SHOP = Shop(seed=5, start=FIRST - 6 * DAY, days=10, customers=40, orders_per_day=25)


class Orders(Live):
    """The order source, and what its DAGs must have made of it."""

    def of(self, dag: str) -> Orders:
        """The same Airflow, another DAG."""
        return Orders(self.airflow, self.world, dag)

    def check(self, *deliveries: Delivery) -> None:
        """All tables are the oracle's for these, in the order of their landing."""
        expected = oracle.tables([known(each) for each in deliveries], MOSCOW)
        assert expected.f_sales
        for name, table in CHECKED.items():
            found = self.query(f"select * from {table}")
            assert oracle.differences(getattr(expected, name), found, limit=5) == [], name


@contextmanager
def live(world: Outside) -> Iterator[Orders]:
    """An Airflow whose report API knows the shop, one day apart, and takes its time for a report."""
    world.reports.settings = Settings(running_looks=4)
    for delivery in (REPORT, *INCREMENTS):
        world.reports.deliver(delivery)
    world.reports.withdraw(ABSENT)
    settings = {
        **SETTINGS,
        "ORDERS_START_DATE": str(FIRST),
        "REPORTS_POLL_SECONDS": "0.5",
    }
    with airflow(world, timezone=MOSCOW.key, settings=settings) as running:
        yield Orders(running, world, "orders_increment")


REPORT = SHOP.report(FIRST)
INCREMENTS = SHOP.increments(FIRST, LAST + DAY, version=1)


@pytest.mark.timeout(1800)
def test_catch_up_then_a_late_day_then_a_backfill(sources: Outside) -> None:
    with live(sources) as it:
        there = [each for each in INCREMENTS if each.date != ABSENT]
        (absent,) = (each for each in INCREMENTS if each.date == ABSENT)
        caught_up(it)
        it.check(REPORT, *there)

        # It has appeared, and is none: that is red, and all else is landed and built.
        poor = {**absent.files, "user_order_log": b"uniq_id,date_time\n"}
        it.world.reports.deliver(replace(absent, files=poor))
        run_id = it.trigger(LAST)
        assert it.ended(run_id)["state"] == "failed"
        states = it.states(run_id)
        assert [task for task, state in states.items() if state == "failed"] == ["earlier_days"]
        assert (states["land"], states["mark"]) == ("success", "success")
        why = it.why(run_id)
        assert f"{ABSENT} can't be used" in why
        assert "repeat: python -m ingestion orders --missing-from" in why
        it.check(REPORT, *there)

        # Delivered anew, the next run lands it too, whatever day that one is for.
        it.world.reports.deliver(absent)
        run_id = it.trigger(start_date=str(LAST), end_date=str(LAST + DAY))
        it.succeeded(run_id)
        assert it.states(run_id)["land"] == "success"
        it.check(REPORT, *INCREMENTS)

        backfill = it.of("orders_backfill")
        waited_for_a_report(backfill)
        it.check(*INCREMENTS, REPORT)
        # Twice is as good as once.
        waited_for_a_report(backfill)
        it.check(*INCREMENTS, REPORT)


def caught_up(it: Orders) -> None:
    """A run for each day from the first, one after another; the absent one's landing is skipped."""
    it.unpause()
    days = [FIRST + n * DAY for n in range(4)]
    runs = wait_for(lambda: found if len(found := it.runs("scheduled")) == len(days) else None)
    for run in runs:
        it.succeeded(run["dag_run_id"])
    runs = it.runs("scheduled")
    assert [day_of(run["data_interval_start"]) for run in runs] == days
    for before, after in pairwise(runs):
        assert before["end_date"] <= after["start_date"]
    states = {day_of(run["data_interval_start"]): it.states(run["dag_run_id"]) for run in runs}
    assert {day: found["land"] for day, found in states.items()} == {
        day: "skipped" if day == ABSENT else "success" for day in days
    }


def waited_for_a_report(it: Orders) -> None:
    """A backfill by hand, whose report is waited for without a worker."""
    it.unpause()
    run_id = it.trigger(start_date=str(FIRST), end_date=str(LAST + DAY))
    wait_for(lambda: it.states(run_id).get("ready") == "deferred")
    it.succeeded(run_id)


def day_of(instant: str) -> date:
    """The business day of an instant."""
    return datetime.fromisoformat(instant).astimezone(MOSCOW).date()
