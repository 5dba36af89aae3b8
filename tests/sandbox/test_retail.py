"""The real order lines: all there, and by the contract of the order source."""

from __future__ import annotations

import csv
import io
from collections import Counter
from datetime import date, timedelta
from decimal import Decimal

import pytest

from sandbox import retail
from sandbox.delivery import FILES, Delivery, Kind
from sandbox.retail import (
    DataMissingError,
    days,
    real_month,
    retail_increment,
    retail_lines,
    retail_report,
)

there = pytest.mark.skipif(not retail.is_there(), reason=f"the real data is not in {retail.FOLDER}")


def lines(delivery: Delivery) -> list[dict[str, str]]:
    """The order lines of a delivery."""
    text = delivery.files["user_order_log"].decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@there
def test_all_days_and_lines_are_there() -> None:
    assert len(days()) == 50
    assert (days()[0], days()[-1]) == (date(2010, 12, 1), date(2011, 2, 7))
    made = [retail_increment(day) for day in days()]
    assert sum(len(lines(each)) for each in made) == 84_374
    statuses = Counter(line["status"] for each in made for line in lines(each))
    assert statuses == {"shipped": 84_374 - 1_529, "refunded": 1_529}
    assert sum(not line["customer_id"] for each in made for line in lines(each)) == 30_482
    assert all(sorted(each.files) == sorted(FILES) for each in made)
    # 803 lines are in the files twice, to the letter.
    ids = {line["uniq_id"] for each in made for line in lines(each)}
    assert len(ids) == 84_374 - 803


@there
def test_the_first_line_in_full() -> None:
    first = lines(retail_increment(date(2010, 12, 1)))[0]
    assert first == {
        "id": "1",
        # md5 of "536365,85123A,WHITE HANGING HEART T-LIGHT HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,…"
        "uniq_id": "d0c08cd68b09fb43f4624dd86df2b069",
        "date_time": "2010-12-01T08:26:00",
        "city_id": "United Kingdom",
        "city_name": "United Kingdom",
        "customer_id": "17850",
        "item_id": "85123A",
        "item_name": "WHITE HANGING HEART T-LIGHT HOLDER",
        "quantity": "6",
        "payment_amount": "15.30",
        "status": "shipped",
    }


@there
def test_a_cancellation_is_a_refund_of_positive_amounts() -> None:
    refunds = [
        each for each in lines(retail_increment(date(2010, 12, 1))) if "refunded" in each.values()
    ]
    (discount,) = [each for each in refunds if each["item_id"] == "D"][:1]
    assert (discount["quantity"], discount["payment_amount"]) == ("1", "27.5")
    amounts = [
        Decimal(line[name])
        for day in days()
        for line in lines(retail_increment(day))
        for name in ("quantity", "payment_amount")
    ]
    assert min(amounts) == 0


@there
def test_a_report_holds_the_lines_of_its_days() -> None:
    start, end = date(2010, 12, 1), date(2010, 12, 6)
    made = retail_report(start, end)
    assert (made.kind, made.start, made.end) == (Kind.REPORT, start, date(2010, 12, 5))
    found = Counter(line["date_time"][:10] for line in lines(made))
    assert sorted(found) == ["2010-12-01", "2010-12-02", "2010-12-03", "2010-12-05"]
    whole = lines(made)
    assert [line["id"] for line in whole] == [str(n) for n in range(1, len(whole) + 1)]


@there
def test_lines_repeat_with_days_and_ids_of_their_own() -> None:
    made = lines(retail_lines(200_000))
    assert len(made) == 200_000
    once, twice = made[:84_374], made[84_374 : 2 * 84_374]
    same = ("customer_id", "item_id", "quantity", "payment_amount", "status")
    assert all(a[name] == b[name] for a, b in zip(once, twice, strict=True) for name in same)
    ids = [{line["uniq_id"] for line in part} for part in (once, twice)]
    assert len(ids[0]) == len(ids[1]) == 84_374 - 803
    assert not ids[0] & ids[1]
    for a, b in zip(once[:10], twice[:10], strict=True):
        moved = [date.fromisoformat(line["date_time"][:10]) for line in (a, b)]
        assert moved[1] - moved[0] == timedelta(weeks=10)
    assert {line["date_time"][:10] for line in once}.isdisjoint(
        line["date_time"][:10] for line in twice
    )


@there
def test_repetitions_share_days_when_told() -> None:
    spread, dense = (retail_lines(3 * 84_374, spans) for spans in (None, 1))
    assert (spread.end - dense.end).days == 2 * 70
    assert dense.end == days()[-1]
    ids = [{line["uniq_id"] for line in lines(made)} for made in (spread, dense)]
    assert ids[0] == ids[1]
    assert len({line["date_time"][:10] for line in lines(dense)}) == 50
    assert len({line["date_time"][:10] for line in lines(spread)}) == 150


@there
def test_the_real_month_is_as_it_is_on_disk() -> None:
    report, increment = real_month()
    assert (report.kind, report.start, report.end) == (
        Kind.REPORT,
        date(2024, 2, 2),
        date(2024, 2, 24),
    )
    assert increment.date == date(2024, 2, 25)
    found = [lines(each) for each in (report, increment)]
    assert [len(each) for each in found] == [22_525, 1_091]
    assert [len({line["uniq_id"] for line in each}) for each in found] == [5_119, 160]
    assert "Молоко 1%,100" in report.files["price_log"].decode()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retail, "FOLDER", retail.FOLDER / "nowhere")
    assert not retail.is_there()
    for ask in (days, real_month):
        with pytest.raises(DataMissingError, match="nowhere"):
            ask()
