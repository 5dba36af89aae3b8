"""Real files the whole way, cell by cell against the oracle: the order source's own month, and fifty
days of a gift shop with cancellations and lines without a customer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from sandbox import retail
from tests.support.orders import Shopfront, shopfront
from tests.support.vitrina import Vitrina

pytestmark = pytest.mark.skipif(
    not retail.is_there(), reason=f"the real files are not in {retail.FOLDER}"
)


@pytest.fixture
def front(vitrina: Vitrina) -> Iterator[Shopfront]:
    """A report API and S3 that have nothing yet."""
    with shopfront(vitrina) as made:
        yield made


def test_the_real_month_and_its_increment(front: Shopfront) -> None:
    month, more = retail.real_month()
    front.land(month)
    assert len(front.build()) == 23
    assert front.wrong() == []
    assert front.wrong_raw() == []
    before = front.tables()
    front.land(more)
    assert front.build() == [retail.MONTH_INCREMENT]
    assert front.wrong() == []
    revenue = "select count(*) as orders, sum(payment_amount) as revenue from core.f_sales"
    assert front.vitrina.query(revenue) == [
        {"orders": 5_119 + 160, "revenue": Decimal("2720675.00")}
    ]
    weekly = front.vitrina.query(
        "select sum(new_customers_revenue + returning_customers_revenue) as revenue"
        " from marts.f_customer_retention group by period_name"
    )
    assert weekly == [{"revenue": Decimal("2720675.00")}] * 2
    # The increment is withdrawn for an empty one: the month is as it was.
    header = more.files["user_order_log"].split(b"\n", 1)[0] + b"\n"
    front.land(replace(more, files={**more.files, "user_order_log": header}))
    assert front.build() == [retail.MONTH_INCREMENT]
    assert front.tables() == before


def test_the_real_month_without_uniq_id_is_the_same_month(front: Shopfront) -> None:
    """Another id, and the same facts."""
    month, _ = retail.real_month()
    log = month.files["user_order_log"].replace(b"id,uniq_id,", b"id,hidden,", 1)
    front.land(replace(month, files={**month.files, "user_order_log": log}))
    front.build()
    assert front.wrong() == []
    found = front.vitrina.query("select count(*) as n, sum(payment_amount) as s from core.f_sales")
    assert found == [{"n": 5_119, "s": Decimal("2643175.00")}]


@pytest.mark.timeout(1800)
def test_the_retail_days_in_any_order_some_twice(front: Shopfront) -> None:
    """A report of the first half, then each day as an increment, builds in between."""
    chance = random.Random(50)
    days = retail.days()
    order = [*days, *chance.sample(days, 8)]
    chance.shuffle(order)
    front.exact_days = False
    front.land(retail.retail_report(days[0], days[25]))
    front.build()
    assert front.wrong() == []
    for number, day in enumerate(order):
        front.land(retail.retail_increment(day))
        if number % 20 == 19:
            front.build()
    front.build()
    assert front.wrong() == []
    assert front.wrong_raw() == []
    assert len(front.expected().f_sales) > 83_000
    # A day delivered again as an empty one: nothing of it stays.
    gone = retail.retail_increment(days[7])
    header = gone.files["user_order_log"].split(b"\n", 1)[0] + b"\n"
    front.land(replace(gone, files={**gone.files, "user_order_log": header}))
    assert front.build() == [days[7]]
    assert front.wrong() == []
