"""The models of orders over hand-made deliveries: whatever was delivered and however it was built."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import pytest

from tests.models import shop
from tests.models.raw import Warehouse

# Two weeks over the end of a year, whose middle week lies in both years.
DAYS = [date(2024, 12, 25) + timedelta(days=n) for n in range(14)]
D1, D2, D3 = DAYS[0], DAYS[1], DAYS[8]
TABLES = tuple(shop.expected({}))


@pytest.fixture
def raw(warehouse: Warehouse) -> Warehouse:
    """No rows in any table."""
    warehouse.clear()
    return warehouse


class Shop:
    """Deliveries, landed and built as a night does: only the days that they changed."""

    def __init__(self, raw: Warehouse) -> None:
        self.raw = raw
        self.slots: dict[date | None, list[dict[str, Any]]] = {}
        self.pending: set[date] = set()

    def deliver(self, slot: date | None, *lines: Mapping[str, Any]) -> set[date]:
        """Land a slot; returns the days that it changed, which are built by the next `build`."""
        self.slots[slot] = [dict(line) for line in lines]
        changed = self.raw.deliver(slot, lines)
        self.pending |= changed
        return changed

    def build(self, *days: date) -> None:
        """Build these days, or the changed ones; then every table has to be right."""
        wanted = days or tuple(sorted(self.pending))
        self.pending -= set(wanted)
        if wanted:
            self.raw.build(*wanted, domain="orders")
        if not self.pending:
            self.check()

    def check(self) -> None:
        for table, rows in shop.expected(self.slots).items():
            assert rows_of(self.raw, table) == sorted(rows, key=repr), table


def rows_of(raw: Warehouse, table: str) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for row in raw.vitrina.query(f"table {table}")), key=repr)


def order(order_id: str, ds: date, **columns: Any) -> dict[str, Any]:
    return {"order_id": order_id, "ds": ds, **columns}


@pytest.mark.parametrize("seed", range(4))
def test_random_deliveries_in_any_order(raw: Warehouse, seed: int) -> None:
    """Against brute force: reports and increments come, come again corrected, supersede each other
    and move orders to other days, and only what they change is built."""
    chance = random.Random(seed)
    found = Shop(raw)
    for _ in range(4):
        for _ in range(chance.randrange(1, 3)):
            slot = chance.choice([None, *DAYS[5:9]])
            found.deliver(slot, *shop.random_lines(chance, DAYS[4:11]))
        # In one run, or one day after another.
        if chance.random() < 0.3:
            for day in chance.sample(sorted(found.pending), len(found.pending)):
                found.build(day)
        else:
            found.build()
    raw.build(domain="orders")
    found.check()
    raw.vitrina.build(None, "--full-refresh", domain="orders")
    found.check()


def test_an_order_that_moves_leaves_its_old_day(raw: Warehouse) -> None:
    found = Shop(raw)
    found.deliver(None, order("a", D1), order("b", D1), order("c", D3))
    found.build()
    assert found.deliver(D2, order("a", D3, payment_amount=7)) == {D1, D2, D3}
    found.build()
    # Delivered again without it: the report's copy holds again.
    assert found.deliver(D2) == {D1, D2, D3}
    found.build()


def test_an_empty_increment_empties_the_reports_day(raw: Warehouse) -> None:
    found = Shop(raw)
    found.deliver(None, order("a", D1), order("b", D2), order("b", D1))
    found.build()
    assert found.deliver(D1) == {D1, D2}
    found.build()
    # The other copy of b holds now, and nothing is left on the emptied day.
    assert [row[:2] for row in rows_of(raw, "core.f_sales")] == [(D2, "b")]


def test_names_go_back_when_their_order_goes(raw: Warehouse) -> None:
    """The dimensions are built from the window's orders; what a lost one hid is found on its day."""
    found = Shop(raw)
    for n, day in enumerate(DAYS[:4]):
        found.deliver(day, order(f"o{n}", day, first_name=f"n{n}", item_id=f"i{n}"))
        found.build()
    # The newest order goes: the name of the day before holds, and its item is gone.
    found.deliver(DAYS[3])
    found.build()
    # It comes again an hour earlier, and still is the newest; then one of an old day, which is not.
    early = f"{DAYS[3]} 11:00Z"
    found.deliver(DAYS[3], order("o3", DAYS[3], first_name="early", date_time=early))
    found.build()
    found.deliver(DAYS[0], order("o0", DAYS[0], first_name="old", item_id="i2"))
    found.build()
    assert [row[:2] for row in rows_of(raw, "core.d_customer")] == [("c", "early")]


def test_a_newer_report_never_replaces_an_increments_rows(raw: Warehouse) -> None:
    found = Shop(raw)
    found.deliver(D1, order("a", D1, payment_amount=1), order("b", D2, payment_amount=1))
    found.build()
    found.deliver(None, order("a", D1, payment_amount=2), order("b", D2, payment_amount=2))
    found.build()
    assert [row[-1] for row in rows_of(raw, "core.f_sales")] == [1, 1]


def test_other_files_increments_supersede_no_orders(raw: Warehouse) -> None:
    raw.deliver(None, [order("a", D1)])
    raw.deliver(D1, [], file="price_log")
    raw.build(D1, domain="orders")
    assert len(rows_of(raw, "core.f_sales")) == 1


def test_a_day_that_changes_rebuilds_its_periods_and_no_others(raw: Warehouse) -> None:
    found = Shop(raw)
    found.deliver(None, *(order(f"o{n}", day) for n, day in enumerate(DAYS)))
    found.build()
    for mart in "f_customer_retention", "f_customer_retention_by_item":
        raw.vitrina.query(f"update marts.{mart} set customers_refunded = 99")
    found.deliver(DAYS[9], order("late", DAYS[9], item_id="1", status="refunded"))
    raw.build(DAYS[9], domain="orders")
    kept = raw.vitrina.query(
        "select period_name, period_id from marts.f_customer_retention"
        " where customers_refunded = 99 order by period_name, period_id"
    )
    assert [tuple(row.values()) for row in kept] == [
        ("monthly", date(2024, 12, 1)),
        ("weekly", date(2024, 12, 23)),
        ("weekly", date(2025, 1, 6)),
    ]


def test_every_line_is_counted_once_says_the_data_test(raw: Warehouse) -> None:
    """It is silent about orders that hold on another day, and finds one lost and one doubled."""
    found = Shop(raw)
    found.deliver(None, order("a", D1), order("b", D1), order("c", D1), order("moved", D1))
    found.deliver(D2, order("moved", D2))
    found.build()
    lines = "assert_order_lines_are_counted_once"
    assert failures(raw, lines, days=[D1]) == failures(raw, lines) == {}
    raw.vitrina.query("delete from core.f_sales where order_id = 'b'")
    raw.vitrina.query("insert into core.f_sales select * from core.f_sales where order_id = 'c'")
    raw.vitrina.query("update core.f_sales set order_id = 'stranger' where order_id = 'a'")
    # The order a and the row without a line are two more.
    assert failures(raw, lines, days=[D1]) == failures(raw, lines) == {lines: 4}


def test_mistake_o01_revenue_that_a_join_multiplies_is_found_by_the_data_test(
    raw: Warehouse,
) -> None:
    """O01: fan-out join of new and returning customers."""
    found = Shop(raw)
    found.deliver(None, order("a", D1), order("b", D3), order("r", D3, status="refunded"))
    found.build()
    name = "assert_customer_retention_revenue_is_that_of_the_sales"
    assert failures(raw, name, days=[D1]) == failures(raw, name) == {}
    raw.vitrina.query(
        "update marts.f_customer_retention set new_customers_revenue = 124 * new_customers_revenue"
        f" where period_id = '{D1:%Y-%m}-01'"
    )
    assert failures(raw, name, days=[D1]) == failures(raw, name) == {name: 1}
    assert failures(raw, name, days=[D3]) == {}


def failures(raw: Warehouse, name: str, days: list[date] | None = None) -> dict[str, int]:
    """The data tests of this name that fail, and their rows."""
    done = raw.vitrina.dbt("test", "--select", name, days=days)
    assert [node.name for node in done.nodes] == [name]
    return {n.name: int(n.message.split()[1]) for n in done.nodes if n.status != "pass"}
