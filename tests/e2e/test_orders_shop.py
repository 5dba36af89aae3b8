"""The made-up shop from its report API to the marts, cell by cell against the oracle: a backfill, the
increments day by day or in any order, twice, late and corrected; the same tables as one clean run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from sandbox.shop import Shop
from tests.support.orders import RAW_TABLES, Shopfront, shopfront, window
from tests.support.vitrina import Vitrina

# Over a year's end, which is in the middle of a week.
SHOP = Shop(seed=41, start=date(2024, 12, 26), days=12)
UNTIL = date(2025, 1, 2)
DAYS = window(SHOP.start, SHOP.days)


@pytest.fixture(params=["1"])
def front(vitrina: Vitrina, request: pytest.FixtureRequest) -> Iterator[Shopfront]:
    """The shop's servers, which have nothing yet."""
    with shopfront(vitrina, cohort=request.param) as made:
        yield made


@pytest.mark.parametrize("front", ["1", "2", "3", "4"], indirect=True)
def test_a_backfill_and_all_increments_at_once(front: Shopfront) -> None:
    """In one window, whatever the cohort calls its files; all of dbt's own tests pass."""
    whole = SHOP.report(UNTIL)
    increments = SHOP.increments(SHOP.start, SHOP.end, version=1)
    for delivery in (whole, *increments):
        front.reports.deliver(delivery)
    front.vitrina.ingest("orders", "--mode", "report")
    front.vitrina.ingest("orders", "--start-date", str(SHOP.start), "--end-date", str(SHOP.end))
    for delivery in (whole, *increments):
        front.note(delivery)
    days, _ = front.plan()
    assert set(days) == front.to_build
    if front.reports.cohort == "1":
        done = front.vitrina.dbt("build", "--select", "tag:orders", days=days)
        assert done.success, done.failures()
    else:
        front.dbt(days)
    assert front.wrong() == []
    assert front.wrong_raw() == []


def test_the_days_go_by(front: Shopfront) -> None:
    """Each night the day's increment; the late one is not found, and comes when it is there."""
    front.land(SHOP.report(UNTIL))
    front.build()
    for day in DAYS:
        delivery = SHOP.increment(day)
        if delivery is None:
            answer = front.vitrina.run("orders", "--date", str(day))
            assert (answer.status, str(day) in answer.log) == (3, True)
            continue
        front.land(delivery)
        if day.day % 3 == 0:
            front.build()
            assert front.wrong() == []
    assert SHOP.late_day is not None
    late = SHOP.increment(SHOP.late_day, version=1)
    assert late is not None
    front.land(late)
    assert SHOP.late_day in front.build()
    assert front.wrong() == []
    before = front.tables()
    front.dbt(DAYS[3:5])
    front.dbt(None)
    assert front.tables() == before


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_any_order_twice_and_corrected_as_one_clean_run(front: Shopfront, seed: int) -> None:
    """First versions and corrections in any order, and reports between them; what is in force at the
    end gives the tables that it gives when it is all that was ever landed."""
    chance = random.Random(seed)
    deliveries = [SHOP.report(UNTIL), SHOP.report(UNTIL, version=1)]
    for version in (0, 1, 2):
        deliveries += SHOP.increments(SHOP.start, SHOP.end, version)
    again = chance.sample(deliveries, 6)
    chance.shuffle(deliveries)
    front.land(SHOP.report(SHOP.start + timedelta(days=1)))
    for number, delivery in enumerate([*deliveries, *again]):
        front.land(delivery)
        if number % 12 == 5:
            front.build()
            assert front.wrong() == []
    front.build()
    assert front.wrong() == []
    once = front.tables(*RAW_TABLES)

    in_force = {one.slot: one for one in front.landed}
    every = {(str(each.kind), each.date): each for each in [*deliveries, *again]}
    assert set(in_force) == set(every)
    front.start_over()
    clean = [every[slot] for slot in sorted(every, key=lambda slot: slot[1] or date.min)]
    front.land(*clean)
    assert [one.files for one in front.landed] == [in_force[one.slot].files for one in front.landed]
    front.dbt(None)
    assert front.tables(*RAW_TABLES) == once
