"""Reports and increments in any order, corrected, late, refused: after each build the tables are
what the oracle says, and only what changed was built. Small deliveries, written by hand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date

import pytest

from sandbox import delivery as sandbox_delivery
from tests.oracle.test_orders_properties import DAYS, encoded
from tests.support.orders import (
    RAW_TABLES,
    Shopfront,
    file,
    increment,
    line,
    report,
    shopfront,
)
from tests.support.vitrina import Vitrina

FEB = {number: date(2024, 2, number) for number in range(1, 30)}


@pytest.fixture
def shop(vitrina: Vitrina) -> Iterator[Shopfront]:
    """A shop that has delivered nothing."""
    with shopfront(vitrina) as made:
        yield made


def test_an_order_moves_from_the_reports_day_to_the_increments(shop: Shopfront) -> None:
    """The day that loses it is rebuilt although none of its own rows changed."""
    shop.land(report(line("a", at="2024-02-01", amount="1"), line("b", at="2024-02-01")))
    assert shop.build() == [FEB[1]]
    assert shop.wrong() == []
    shop.land(increment("2024-02-14", line("a", at="2024-02-14", amount="2")))
    assert shop.build() == [FEB[1], FEB[14]]
    assert shop.wrong() == []
    # Back again, by a correction that lacks it, in place and under the same id.
    shop.land(increment("2024-02-14"))
    assert shop.build() == [FEB[1], FEB[14]]
    assert shop.wrong() == []


def test_an_empty_increment_supersedes_the_reports_day(shop: Shopfront) -> None:
    """Not one row of the raw order log changes, and yet its day does."""
    shop.land(report(line("a", at="2024-02-01"), line("b", at="2024-02-07")))
    shop.build()
    shop.land(increment("2024-02-07"))
    assert shop.build() == [FEB[7]]
    assert shop.wrong() == []
    assert len(shop.expected().f_sales) == 1


def test_a_newer_report_replaces_the_report_and_no_increment(shop: Shopfront) -> None:
    shop.land(
        report(line("a", at="2024-02-01"), line("b", at="2024-02-07"), line("x", at="2024-02-20")),
        increment("2024-02-07", line("c", at="2024-02-07"), line("x", at="2024-02-08")),
    )
    shop.build()
    assert shop.wrong() == []
    newer = report(line("d", at="2024-02-02"), line("e", at="2024-02-07"), key="newer")
    shop.land(newer)
    days = shop.build()
    assert FEB[1] in days
    assert FEB[2] in days
    assert shop.wrong() == []


def test_an_increment_lands_the_report_first_when_there_is_none(shop: Shopfront) -> None:
    whole = report(line("a", at="2024-02-01"), line("b", at="2024-02-07"))
    day = increment("2024-02-07", line("c", at="2024-02-07"))
    shop.reports.deliver(whole)
    shop.reports.deliver(day)
    shop.vitrina.ingest("orders", "--date", "2024-02-07")
    shop.note(whole)
    shop.note(day)
    assert shop.build() == [FEB[1], FEB[7]]
    assert shop.wrong() == []


def test_increments_that_overlap_in_days_and_identities(shop: Shopfront) -> None:
    """The later date wins, although it was landed first; rows keep their own days."""
    shop.land(report(line("a", at="2024-02-01", amount="1")))
    shop.land(increment("2024-02-06", line("a", at="2024-02-02", amount="3"), line("b")))
    shop.build()
    shop.land(increment("2024-02-05", line("a", at="2024-02-03", amount="2"), line("b")))
    shop.build()
    assert shop.wrong() == []
    # The later one takes its copy back: the earlier one's holds.
    shop.land(increment("2024-02-06", line("b"), key="corrected"))
    assert FEB[2] in shop.build()
    assert shop.wrong() == []
    shop.land(increment("2024-02-05", key="corrected"))
    shop.build()
    assert shop.wrong() == []


def test_a_late_increment_comes_by_itself(shop: Shopfront) -> None:
    shop.land(report(line("a", at="2024-02-01")))
    shop.reports.deliver(increment("2024-02-06", line("c", at="2024-02-06")))
    answer = shop.vitrina.run("orders", "--start-date", "2024-02-05", "--end-date", "2024-02-07")
    assert answer.status == 3
    assert "2024-02-05" in answer.log
    shop.note(increment("2024-02-06", line("c", at="2024-02-06")))
    shop.build()
    assert shop.wrong() == []
    late = increment("2024-02-05", line("d", at="2024-02-05"), line("c", at="2024-02-05"))
    shop.reports.deliver(late)
    shop.vitrina.ingest("orders", "--start-date", "2024-02-05", "--end-date", "2024-02-07")
    shop.note(late)
    shop.build()
    assert shop.wrong() == []


def test_what_is_refused_leaves_everything_as_it_was(shop: Shopfront) -> None:
    good = increment("2024-02-07", line("b", at="2024-02-07"))
    shop.land(report(line("a", at="2024-02-01")), good)
    shop.build()
    before = shop.tables(*RAW_TABLES, "raw.quarantine")
    whole = file(line("x", at="2024-02-07"), line("y", amount="-1"))
    log, research = "user_order_log", "customer_research"
    broken = [
        {**whole, log: b""},
        {**whole, log: whole[log].removesuffix(b",100,shipped\n") + b",1"},
        {**whole, log: whole[log] + b'"open'},
        {**whole, log: whole[log].replace(b"customer_id", b"client_id")},
        {**whole, research: whole[research] + b"2024-02-07T00:00:00,1"},
    ]
    for number, files in enumerate(broken):
        shop.refuse(sandbox_delivery.increment(FEB[7], files, number))
        assert shop.tables(*RAW_TABLES, "raw.quarantine") == before
        assert shop.plan()[0] == []
    shop.land(sandbox_delivery.increment(FEB[7], whole, "whole"))
    shop.build()
    assert shop.wrong() == []


def test_the_same_again_is_not_read_and_changes_nothing(shop: Shopfront) -> None:
    whole = report(line("a", at="2024-02-01"))
    day = increment("2024-02-07", line("b", at="2024-02-07"), line("c", amount="x"))
    shop.land(whole, day)
    shop.build()
    before = shop.tables(*RAW_TABLES)
    key = shop.reports.object_key(day, "user_order_log")
    reads = shop.reports.s3.reads(key)
    for _ in range(2):
        shop.vitrina.ingest("orders", "--date", "2024-02-07")
        assert shop.plan()[0] == []
    assert shop.reports.s3.reads(key) == reads
    shop.vitrina.ingest("orders", "--date", "2024-02-07", "--again")
    assert shop.reports.s3.reads(key) > reads
    shop.to_build |= {FEB[7]}
    shop.build()
    assert shop.tables(*RAW_TABLES) == before
    assert shop.wrong() == []


def test_periods_of_a_day_that_is_emptied_go(shop: Shopfront) -> None:
    shop.land(report(line("a", at="2023-12-31"), line("b", at="2024-01-01")))
    shop.build()
    assert len(shop.expected().f_customer_retention) == 4
    shop.land(report(line("b", at="2024-01-01"), key="corrected"))
    shop.build()
    assert len(shop.expected().f_customer_retention) == 2
    assert shop.wrong() == []
    shop.land(report(key="empty"))
    shop.build()
    assert shop.expected().f_sales == []
    assert shop.wrong() == []


def test_an_identity_by_hash_meets_itself_in_another_file(shop: Shopfront) -> None:
    """One file without `uniq_id`, with other columns in another order, the other with it empty."""
    header = "payment_amount,quantity,item_id,customer_id,city_id,date_time"
    with_key, without = (
        file(line("", amount="1.005")),
        file("1.01,1.0000,i1,c1,1,2024-02-07 12:00:00.000", header=header),
    )
    shop.land(sandbox_delivery.report(FEB[1], FEB[29], with_key))
    shop.land(sandbox_delivery.increment(FEB[8], without))
    shop.build()
    assert shop.wrong() == []
    assert len(shop.expected().f_sales) == 1


def random_delivery(chance: random.Random, number: int) -> sandbox_delivery.Delivery:
    """A few lines over ten days, with few identities, customers and items."""
    lines = [
        (
            chance.choice(["", *"abcdefgh"]),
            f"{chance.choice(DAYS)}T{chance.randrange(24):02}:00:00",
            chance.choice(["1", "2", ""]),
            chance.choice(["c1", "c2", "c3", ""]),
            chance.choice(["Anna", 'An"na', "Ан,на", "An\nna", ""]),
            chance.choice(["i1", "i2", ""]),
            chance.choice(["1", "2.0005", "0"]),
            chance.choice(["10", "0.005", "19.995", "-1", "x"]),
            chance.choice(["", "shipped", "refunded", "lost"]),
        )
        for _ in range(chance.randrange(8))
    ]
    files = {**file(), "user_order_log": encoded(lines)}
    if chance.random() < 0.3:
        return sandbox_delivery.report(DAYS[0], DAYS[-1], files, number)
    return sandbox_delivery.increment(chance.choice(DAYS), files, number)


@pytest.mark.parametrize(
    ("seed", "landings"), [(1, 30), *(pytest.param(n, 60, marks=pytest.mark.long) for n in (2, 3))]
)
def test_any_deliveries_in_any_order(shop: Shopfront, seed: int, landings: int) -> None:
    """Only the planned days are built, after one landing or after several."""
    chance = random.Random(seed)
    shop.land(sandbox_delivery.report(DAYS[0], DAYS[-1], file(), "first"))
    shop.dbt(None)  # the plan has no days as long as nothing was landed
    for number in range(landings):
        shop.land(random_delivery(chance, number))
        if chance.random() < 0.4:
            shop.build()
            assert shop.wrong() == [], number
        assert shop.wrong_raw() == [], number
    shop.build()
    assert shop.wrong() == []
    before = shop.tables()
    shop.dbt(None, "--full-refresh")
    assert shop.tables() == before


def test_odd_lines_are_judged_as_the_oracle_judges_them(shop: Shopfront) -> None:
    """One file with a line of each oddity between good ones, and the raw tables with it."""
    odd = [
        line("few").rsplit(",", 1)[0],
        line("many") + ",more",
        "",
        line("zero", item="a\0b"),
        line("bytes", item="?"),
        line("quote", item='x"y"'),
        line("behind", item='"x"y'),
        line("under", quantity="1_0"),
        line("hex", quantity="0x1F"),
        line("word", at="infinity"),
        line("great", amount="9999999999999999.995"),
        line("minus", amount="-0.001"),
        line("status", status="Shipped"),
    ]
    good = [
        line("half", amount="2.675", quantity="0.0005"),
        line("exp", amount="1.25e2"),
        line("blank", amount=" 5 "),
        line("offset", at="2024-02-07T23:00:00-05:30"),
        line("quoted", item='"a ""b"", c\nd"', customer='""'),
        line("text", customer=" C1 ", city="007"),
    ]
    mixed = [each for pair in zip(odd, [*good, *good, *good], strict=False) for each in pair]
    files = file(*mixed)
    files["user_order_log"] = files["user_order_log"].replace(b",?,", b",\xff\xfe,")
    shop.land(report(), sandbox_delivery.increment(FEB[7], files))
    assert shop.wrong_raw() == []
    shop.build()
    assert shop.wrong() == []
