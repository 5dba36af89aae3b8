"""The mistakes O of MISTAKES.md that a model can make, where one dbt unit test can't show them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from tests.models.raw import Warehouse
from tests.models.test_orders import Shop, order, rows_of

SUNDAY, MONDAY = date(2024, 2, 4), date(2024, 2, 5)
WEEK = [MONDAY + timedelta(days=n) for n in range(7)]


@pytest.fixture
def raw(warehouse: Warehouse) -> Warehouse:
    """No rows in any table."""
    warehouse.clear()
    return warehouse


@pytest.fixture(params=["Pacific/Apia", "America/New_York"])
def far_away(raw: Warehouse, request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """A warehouse whose sessions have another time zone than the business."""
    name = raw.vitrina.outside.warehouse
    raw.vitrina.query(f"alter database {name} set timezone to '{request.param}'")
    yield raw
    raw.vitrina.query(f"alter database {name} reset timezone")


def test_mistake_o03_the_sessions_time_zone_moves_no_row(far_away: Warehouse) -> None:
    """O03: the session's time zone moves rows to another week. Moscow's midnight is 21:00 UTC."""
    found = Shop(far_away)
    found.deliver(
        None,
        order("last", SUNDAY, date_time="2024-02-04 20:59:59.999999Z"),
        order("first", MONDAY, date_time="2024-02-04 21:00:00Z", customer_id="d"),
        order("january", date(2024, 1, 31), date_time="2024-01-31 20:59:59Z"),
        order("february", date(2024, 2, 1), date_time="2024-01-31 21:00:00Z"),
    )
    found.build()
    calendar = far_away.vitrina.query(
        "select week_start, month_start from core.d_calendar where ds = '2024-02-04'"
    )
    assert calendar == [{"week_start": date(2024, 1, 29), "month_start": date(2024, 2, 1)}]


def test_mistake_o04_repeated_orders_count_once_over_days_and_slots(raw: Warehouse) -> None:
    """O04: no deduplication by `uniq_id`; also where the copies are built on different nights."""
    found = Shop(raw)
    found.deliver(None, *(order("a", day, payment_amount=n) for n, day in enumerate(WEEK)))
    for day in reversed(WEEK):
        found.build(day)
    assert rows_of(raw, "core.f_sales")[0][:2] == (WEEK[-1], "a")
    for n, slot in enumerate(WEEK[:3]):
        found.deliver(slot, order("a", MONDAY, payment_amount=100 + n))
        found.build()
    ((ds, _, *_, amount),) = rows_of(raw, "core.f_sales")
    assert (ds, amount) == (MONDAY, 102)


def test_mistake_o07_the_calendar_has_each_day_once(raw: Warehouse) -> None:
    """O07: dates as epoch integers, one calendar row a timestamp, `WW` mixed with ISO weeks."""
    raw.build(MONDAY, domain="orders")
    days = [date(2010, 1, 1) + timedelta(days=n) for n in range(9496)]
    assert days[-1] == date(2035, 12, 31)
    expected = [
        (d, *d.isocalendar()[:2], d - timedelta(days=d.weekday()), d.replace(day=1)) for d in days
    ]
    found = raw.vitrina.query("select * from core.d_calendar order by ds")
    assert [tuple(row.values()) for row in found] == expected


def test_mistake_o09_names_that_become_null_or_known_are_updated(raw: Warehouse) -> None:
    """O09: NOT IN and `<>` with nulls miss updates; the oldest name wins instead of the newest."""
    found = Shop(raw)
    for name in "Ann", None, "Bea", "Ann":
        found.deliver(MONDAY, order("a", MONDAY, first_name=name, last_name="X"))
        found.build()
        assert [row[:3] for row in rows_of(raw, "core.d_customer")] == [("c", name, "X")]
    # A key that becomes null leaves no row behind.
    found.deliver(MONDAY, order("a", MONDAY, customer_id=None, item_id=None))
    found.build()
    assert rows_of(raw, "core.d_customer") == []


def test_mistake_o15_a_day_recomputes_its_own_periods_alone(raw: Warehouse) -> None:
    """O15: all history recomputed at each read. Readers find tables, and a day's build leaves the
    rows of other days and periods where they are."""
    found = Shop(raw)
    days = [MONDAY + timedelta(days=15 * n) for n in range(4)]
    found.deliver(None, *(order(f"o{n}", day, item_id="1") for n, day in enumerate(days)))
    found.build()
    tables = {
        "core.f_sales": "ds",
        "marts.f_customer_retention": "period_id",
        "marts.f_customer_retention_by_item": "period_id",
    }
    kinds = raw.vitrina.query(
        "select count(*) as n from pg_class where oid = any(%s::regclass[]) and relkind in ('r', 'p')",
        list(tables),
    )
    assert kinds == [{"n": len(tables)}]
    written = {t: _written(raw, t, key) for t, key in tables.items()}
    raw.build(days[1], domain="orders")
    for table, key in tables.items():
        after = _written(raw, table, key)
        rewritten = {row[:-1] for row in after - written[table]}
        periods = {days[1], days[1].replace(day=1), days[1] - timedelta(days=days[1].weekday())}
        assert {row[0] for row in rewritten} == periods & {row[0] for row in after}, table
        assert rewritten, table
    found.check()


def _written(raw: Warehouse, table: str, key: str) -> set[tuple[object, ...]]:
    """Each row's key and the transaction that wrote it."""
    found = raw.vitrina.query(f"select {key}, xmin::text from {table}")
    return {tuple(row.values()) for row in found}


def test_mistake_o17_a_second_run_doubles_nothing(raw: Warehouse) -> None:
    """O17: append without delete; COUNT of a key instead of distinct customers."""
    found = Shop(raw)
    orders = [order(f"o{n}", day, item_id="1") for n, day in enumerate(WEEK)]
    found.deliver(None, *orders)
    found.deliver(WEEK[2], *orders[2:4])
    for _ in range(2):
        found.build(*WEEK)
    found.build(WEEK[0])
    assert len(rows_of(raw, "marts.f_customer_retention")) == 2


def test_mistake_o19_any_nights_late_data_mends_its_week(raw: Warehouse) -> None:
    """O19: a Monday-only run, so that late data is never mended."""
    found = Shop(raw)
    for n, day in enumerate(WEEK):
        found.deliver(day, order(f"o{n}", day))
        found.build()
    # Thursday's increment brings an order of the Sunday two weeks ago.
    old = MONDAY - timedelta(days=8)
    assert found.deliver(WEEK[3], order("late", old), order("o3", WEEK[3])) == {old, WEEK[3]}
    found.build()
    assert ("weekly", old - timedelta(days=6), 1) in {
        row[:3] for row in rows_of(raw, "marts.f_customer_retention")
    }
