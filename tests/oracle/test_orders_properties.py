"""What must hold of the orders oracle for any files, whatever they are: small random shops."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from .orders import INCREMENT, REFUNDED, REPORT, Delivery, SaleRow, changed_days, tables

COLUMNS = (
    "uniq_id",
    "date_time",
    "city_id",
    "customer_id",
    "first_name",
    "item_id",
    "quantity",
    "payment_amount",
    "status",
)
DAYS = [date(2024, 12, 28) + timedelta(days=n) for n in range(10)]  # over a year's end
Row = tuple[str, ...]

rows = st.tuples(
    st.sampled_from(["", "a", "b", "c", "d", "e"]),
    st.builds(
        lambda day, hour: f"{day}T{hour:02}:00:00", st.sampled_from(DAYS), st.integers(0, 23)
    ),
    st.sampled_from(["1", ""]),
    st.sampled_from(["c1", "c2", "c3", ""]),
    st.sampled_from(["Anna", 'An"na', "Ан,на", "An\nna", ""]),
    st.sampled_from(["i1", "i2", ""]),
    st.sampled_from(["1", "2.0005", "0"]),
    st.sampled_from(["10", "0.005", "19.995", "-1", "x"]),
    st.sampled_from(["", "shipped", "refunded", "lost"]),
)


def encoded(lines: Sequence[Row], columns: Sequence[str] = COLUMNS, eol: str = "\n") -> bytes:
    """The lines as a file with these columns, of which unknown ones hold 'x'."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=eol)
    writer.writerow(columns)
    for line in lines:
        cells = dict(zip(COLUMNS, line, strict=True))
        writer.writerow([cells.get(column, "x") for column in columns])
    return text.getvalue().encode()


def delivery(slot_date: date | None, lines: Sequence[Row]) -> Delivery:
    """A report or an increment of these lines."""
    kind = INCREMENT if slot_date else REPORT
    return Delivery(kind, slot_date, {"user_order_log": encoded(lines)})


deliveries = st.lists(
    st.builds(delivery, st.none() | st.sampled_from(DAYS), st.lists(rows, max_size=8)), max_size=6
)


@settings(max_examples=100, deadline=None)
@given(deliveries, st.randoms(use_true_random=False))
def test_the_order_of_landing_matters_within_a_slot_only(
    landed: list[Delivery], chance: random.Random
) -> None:
    last = list({each.slot: each for each in landed}.values())
    expected = tables(landed)
    assert tables(last) == expected
    chance.shuffle(last)
    assert tables(last) == expected
    assert tables([*last, *last]) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(rows, max_size=12), st.permutations([*COLUMNS, "coupon"]), st.booleans())
def test_how_a_file_is_written_changes_nothing(
    lines: list[Row], columns: list[str], dos: bool
) -> None:
    data = encoded(lines, columns, "\r\n" if dos else "\n")
    data = data if not dos else b"\xef\xbb\xbf" + data.removesuffix(b"\r\n")
    written = Delivery(REPORT, None, {"user_orders_log.csv": data})
    assert tables([written]) == tables([delivery(None, lines)])


@settings(max_examples=100, deadline=None)
@given(deliveries)
def test_retention_accounts_for_each_sale_once(landed: list[Delivery]) -> None:
    found = tables(landed)
    by_period: dict[tuple[str, date], list[SaleRow]] = {}
    for sale in found.f_sales:
        for name in ("weekly", "monthly"):
            start = sale.ds.replace(day=1)
            if name == "weekly":
                start = sale.ds - timedelta(days=sale.ds.isoweekday() - 1)
            by_period.setdefault((name, start), []).append(sale)
    assert {(row.period_name, row.period_id) for row in found.f_customer_retention} == set(
        by_period
    )
    for row in found.f_customer_retention:
        sales = [s for s in by_period[row.period_name, row.period_id] if s.customer_id]
        shoppers = {sale.customer_id for sale in sales if sale.status != REFUNDED}
        assert row.new_customers_count + row.returning_customers_count == len(shoppers)
        assert row.customers_refunded == sum(sale.status == REFUNDED for sale in sales)
        assert row.new_customers_revenue + row.returning_customers_revenue == sum(
            (sale.payment_amount for sale in sales if sale.customer_id in shoppers), Decimal(0)
        )
        by_item = [
            each
            for each in found.f_customer_retention_by_item
            if (each.period_name, each.period_id) == (row.period_name, row.period_id)
        ]
        assert sum(each.customers_refunded for each in by_item) == sum(
            sale.status == REFUNDED for sale in sales if sale.item_id
        )


@settings(max_examples=100, deadline=None)
@given(deliveries)
def test_every_line_is_an_order_a_copy_or_in_quarantine(landed: list[Delivery]) -> None:
    found = tables(landed)
    in_force = {each.slot: each for each in landed}.values()
    lines = sum(
        len(list(csv.DictReader(io.StringIO(data.decode(), newline=""))))
        for each in in_force
        for data in each.files.values()
    )
    assert len(found.f_sales) + len(found.quarantined) <= lines
    assert len({row.order_id for row in found.f_sales}) == len(found.f_sales)
    assert {row.customer_id for row in found.f_sales} - {None} == {
        row.customer_id for row in found.d_customer
    }
    assert {row.item_id for row in found.f_sales} - {None} == {row.item_id for row in found.d_item}


@settings(max_examples=200, deadline=None)
@given(deliveries.filter(bool))
def test_no_day_changes_that_is_not_marked(landed: list[Delivery]) -> None:
    before = set(tables(landed[:-1]).f_sales)
    after = set(tables(landed).f_sales)
    marked = changed_days(landed[:-1], landed[-1])
    assert {row.ds for row in before ^ after} <= marked
