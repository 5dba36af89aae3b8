"""The mistakes of the old order pipeline, made impossible the whole way: source, landing, plan, models.

Each is shown by its parts in tests/ingestion and tests/models, or by a unit test of a model; here are
those that only show when all of it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from sandbox import retail
from tests.support.orders import RAW_TABLES, Shopfront, increment, line, report, shopfront
from tests.support.vitrina import Vitrina

FEB = {number: date(2024, 2, number) for number in range(1, 30)}
WEEKLY = (
    "select period_id, new_customers_count as new, returning_customers_count as returning"
    " from marts.f_customer_retention where period_name = 'weekly' order by period_id"
)


@pytest.fixture
def shop(vitrina: Vitrina) -> Iterator[Shopfront]:
    """A shop that has delivered nothing."""
    with shopfront(vitrina) as made:
        yield made


@pytest.mark.skipif(not retail.is_there(), reason=f"no real files in {retail.FOLDER}")
def test_mistake_o01_o04_the_real_months_revenue_is_told_once(shop: Shopfront) -> None:
    """The old view told 124 and 568 times of it; and four times without its copies left out."""
    month, _ = retail.real_month()
    shop.land(month)
    shop.build()
    told = "select sum(payment_amount) as revenue from raw.user_order_log"
    assert shop.vitrina.query(told) == [{"revenue": Decimal("11681550.00")}]
    revenue = (
        "select period_name, sum(new_customers_revenue) as new,"
        " sum(returning_customers_revenue) as returning"
        " from marts.f_customer_retention group by period_name order by period_name"
    )
    found = {row["period_name"]: row for row in shop.vitrina.query(revenue)}
    assert all(row["new"] + row["returning"] == 2_643_175 for row in found.values())
    assert found["weekly"]["new"] == 251_710 + 378_215 + 368_400 + 279_975
    # The join of the old view, on the same marts: what nobody may read.
    fanned = shop.vitrina.query(
        "select sum(new_customers_revenue * returning_customers_count"
        " + returning_customers_revenue * new_customers_count) as revenue"
        " from marts.f_customer_retention where period_name = 'weekly'"
    )
    assert fanned[0]["revenue"] > 500 * 2_643_175
    # It has no refunds either, and says so by 0 and not by null (O14).
    nothing = "select distinct refunded_customer_count as a, customers_refunded as b"
    assert shop.vitrina.query(f"{nothing} from marts.f_customer_retention") == [{"a": 0, "b": 0}]


def test_mistake_o03_no_session_moves_a_row_to_another_week(vitrina: Vitrina) -> None:
    """A quarter of an hour on both sides of a week's border, in a shop far from the sessions."""
    zone = ZoneInfo("Asia/Vladivostok")
    elsewhere = Vitrina(vitrina.outside, vitrina.project, {"PGTZ": "America/New_York"})
    with shopfront(elsewhere, zone=zone) as shop:
        shop.land(
            report(
                line("a", at="2024-02-11T23:45:00"),
                line("b", at="2024-02-12T00:15:00"),
                # The same instants with an offset: Sunday at 13:45 and 14:15 UTC.
                line("c", at="2024-02-11T13:45:00Z", customer="c2"),
                line("d", at="2024-02-11T14:15:00Z", customer="c2"),
            )
        )
        assert shop.build() == [FEB[11], FEB[12]]
        assert shop.wrong() == []
        assert shop.vitrina.query(WEEKLY) == [
            {"period_id": FEB[5], "new": 2, "returning": 0},
            {"period_id": FEB[12], "new": 2, "returning": 0},
        ]


def test_mistake_o11_a_corrected_file_under_the_same_address_is_read(shop: Shopfront) -> None:
    """In the same place, of the same size: the ETag tells."""
    first = increment("2024-02-07", line("a", amount="100"))
    shop.land(report(), first)
    shop.build()
    corrected = increment("2024-02-07", line("a", amount="900"))
    assert corrected.id == first.id
    shop.land(corrected)
    assert shop.build() == [FEB[7]]
    assert shop.wrong() == []
    assert shop.expected().f_sales[0].payment_amount == 900


def test_mistake_o13_o17_an_interrupted_night_is_repeated_whole(shop: Shopfront) -> None:
    """Landed and not built, built and not marked, landed twice: the same tables as of one night."""
    shop.land(report(line("a", at="2024-02-01")), increment("2024-02-07", line("b")))
    days, _ = shop.plan()
    shop.dbt(days)
    once = shop.tables(*RAW_TABLES)
    shop.vitrina.ingest("orders", "--date", "2024-02-07", "--again")
    assert set(days) <= set(shop.plan()[0])
    shop.dbt(days)
    shop.build()
    assert shop.plan()[0] == []
    assert shop.tables(*RAW_TABLES) == once
    assert shop.wrong() == []


def test_mistake_o19_late_data_mends_the_week_and_the_month_of_any_age(shop: Shopfront) -> None:
    """On whatever weekday it comes: half a year later a customer turns out to have come back."""
    shop.land(report(line("a", at="2024-02-06"), line("b", at="2024-02-13")))
    shop.build()
    assert [row["new"] for row in shop.vitrina.query(WEEKLY)] == [1, 1]
    late = increment("2024-08-15", line("c", at="2024-02-07"), line("d", at="2024-08-15"))
    shop.land(late)
    assert shop.build() == [FEB[7], date(2024, 8, 15)]
    assert shop.wrong() == []
    assert [(row["new"], row["returning"]) for row in shop.vitrina.query(WEEKLY)] == [
        (0, 1),
        (1, 0),
        (1, 0),
    ]
    shop.land(replace(late, files=increment("2024-08-15").files))
    shop.build()
    assert shop.wrong() == []
    assert [row["new"] for row in shop.vitrina.query(WEEKLY)] == [1, 1]
