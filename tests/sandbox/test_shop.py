"""The made-up shop: the same bytes for a seed, and each oddity that it promises is in its files."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections import defaultdict
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sandbox.dbt import ROOT
from sandbox.delivery import FILES
from sandbox.shop import NEW_COLUMNS, ORDER_COLUMNS, Delivery, Kind, Shop
from sandbox.trade import HOSTILE_NAME

START = date(2024, 12, 28)
MOSCOW = ZoneInfo("Europe/Moscow")
BOM = b"\xef\xbb\xbf"

DIGEST = """
import hashlib
from datetime import date
from sandbox.shop import Shop
shop = Shop(seed=SEED, start=date(2024, 12, 28))
digest = hashlib.sha256()
for made in (shop.report(date(2025, 1, 2)), *shop.increments(shop.start, shop.end, version=1)):
    digest.update(repr((made, sorted(made.files.items()))).encode())
print(digest.hexdigest())
"""

Record = dict[str, str]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(seed=7, start=START)


@pytest.fixture(scope="module")
def report(shop: Shop) -> Delivery:
    return shop.report(START + timedelta(days=5))


@pytest.fixture(scope="module")
def increments(shop: Shop) -> list[Delivery]:
    return shop.increments(shop.start, shop.end)


def records(delivery: Delivery) -> list[Record]:
    """The lines of the order log that have the right number of cells and are text."""
    text = delivery.files["user_order_log"].decode("utf-8-sig", errors="replace")
    header, *rest = csv.reader(io.StringIO(text, newline=""))
    return [
        dict(zip(header, cells, strict=True))
        for cells in rest
        if len(cells) == len(header) and "\ufffd" not in "".join(cells)
    ]


def header(delivery: Delivery) -> list[str]:
    """The columns of the order log."""
    text = delivery.files["user_order_log"].decode("utf-8-sig", errors="replace")
    return next(csv.reader(io.StringIO(text)))


def day_of(record: Record) -> date | None:
    """The business day of a line; None when its instant is none."""
    try:
        read = datetime.fromisoformat(record["date_time"])
    except ValueError:
        return None
    return (read.astimezone(MOSCOW) if read.tzinfo else read).date()


def digest(seed: int, hash_seed: str) -> str:
    """What a process of its own makes."""
    return subprocess.run(
        [sys.executable, "-c", DIGEST.replace("SEED", str(seed))],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert digest(7, "1") == digest(7, "2") != digest(8, "1")


def test_a_delivery_does_not_depend_on_what_was_made_before(shop: Shop) -> None:
    fresh = Shop(seed=7, start=START)
    day = START + timedelta(days=3)
    assert fresh.increment(day) == shop.increment(day)
    assert fresh.increment(day) == shop.increment(day)


def test_what_is_delivered(shop: Shop, report: Delivery, increments: list[Delivery]) -> None:
    assert (report.kind, report.date, report.start) == (Kind.REPORT, None, START)
    assert report.end == START + timedelta(days=4)
    assert all(tuple(sorted(made.files)) == tuple(sorted(FILES)) for made in [report, *increments])
    assert [made.date for made in increments] == [
        START + timedelta(days=number) for number in range(10) if number != 8
    ]
    assert all(made.kind is Kind.INCREMENT for made in increments)
    assert len({made.id for made in [report, *increments]}) == 10
    assert all(made.id.endswith("=") for made in [report, *increments])
    with pytest.raises(ValueError, match="no day"):
        shop.report(START)


def test_days_that_are_not_found(shop: Shop) -> None:
    assert shop.increment(START - timedelta(days=1)) is None
    assert shop.increment(shop.end) is None
    late = shop.late_day
    assert late is not None
    assert shop.increment(late) is None
    appeared = shop.increment(late, version=1)
    assert appeared is not None
    assert records(appeared)


def test_an_empty_day_is_a_header_and_the_report_has_rows_of_it(shop: Shop) -> None:
    empty = shop.empty_day
    assert empty is not None
    made = shop.increment(empty)
    assert made is not None
    assert made.files["user_order_log"] == ",".join(header(made)).encode() + b"\n"
    assert "payment_amount" in header(made)
    assert empty in {day_of(record) for record in records(shop.report(shop.end))}


def test_the_report_is_as_the_contract_has_it(report: Delivery) -> None:
    assert header(report) == list(ORDER_COLUMNS)
    days = {day_of(record) for record in records(report)} - {None}
    assert days == {START + timedelta(days=number) for number in range(5)}


def test_files_are_written_in_each_way(increments: list[Delivery]) -> None:
    full = [made for made in increments if records(made)]
    headers = [header(made) for made in full]
    optional = {"id", "uniq_id", "city_name", "first_name", "last_name", "item_name", "status"}
    assert {
        name for columns in headers for name in ORDER_COLUMNS if name not in columns
    } == optional
    assert any("uniq_id" in columns and "status" not in columns for columns in headers)
    assert any("uniq_id" not in columns and "status" in columns for columns in headers)
    assert any(set(NEW_COLUMNS) < set(columns) for columns in headers)
    orders = [[name for name in columns if name in ORDER_COLUMNS] for columns in headers]
    assert any(columns != sorted(columns, key=ORDER_COLUMNS.index) for columns in orders)
    logs = [made.files["user_order_log"] for made in full]
    with_bom = [made for made in full if made.files["user_order_log"].startswith(BOM)]
    assert all(made.files["price_log"].startswith(BOM) for made in with_bom)
    assert with_bom
    assert any(b"\r\n" in log for log in logs)
    assert any(not log.endswith(b"\n") for log in logs)
    assert any(log.startswith(b'"id","uniq_id"') for log in logs)
    # What COPY takes as it is, and what it refuses whole.
    broken = [log for log in logs if b"\xff\xfe" in log]
    assert 0 < len(broken) < len(logs)


def test_cells_hold_what_has_to_be_quoted(report: Delivery) -> None:
    cells = {cell for record in records(report) for cell in record.values()}
    assert HOSTILE_NAME in cells
    assert any(each in cells for each in ("O'Neil, Jr.", 'Ручка "шариковая"'))
    assert "Смирнов " in cells
    assert "009" in cells


def test_ids_repeat_within_a_file_and_some_copies_differ(report: Delivery) -> None:
    copies = _by_id(records(report))
    repeated = [same for same in copies.values() if len(same) > 1]
    assert len(repeated) > 0.2 * len(copies)
    differing = [same for same in repeated if len({_content(record) for record in same}) > 1]
    assert 5 < len(differing) < len(repeated)
    assert any(len({record["status"] for record in same}) > 1 for same in differing)


def test_ids_repeat_across_files_and_days(report: Delivery, increments: list[Delivery]) -> None:
    days = defaultdict(set)
    files = defaultdict(set)
    for made in [report, *increments]:
        for record in records(made):
            if (uniq_id := record.get("uniq_id")) and (day := day_of(record)):
                days[uniq_id].add(day)
                files[uniq_id].add(made.id)
    assert sum(len(each) > 1 for each in days.values()) > 10
    assert sum(len(each) > 1 for each in files.values()) > 50


def test_increments_hold_rows_of_other_days(increments: list[Delivery]) -> None:
    full = [made for made in increments if records(made)]
    for made in full:
        days = {day_of(record) for record in records(made)} - {None}
        assert made.date in days
        assert len(days) > 1
    earliest = min(day for made in full for r in records(made) if (day := day_of(r)))
    assert earliest < START


def test_customers_return_and_some_only_get_refunds(shop: Shop) -> None:
    shipped: dict[str, set[str]] = defaultdict(set)
    refunded: dict[str, set[str]] = defaultdict(set)
    for record in records(shop.report(shop.end)):
        if record["customer_id"] and record["status"] in ("", "shipped", "refunded"):
            side = refunded if record["status"] == "refunded" else shipped
            side[record["customer_id"]].add(record["uniq_id"])
    assert any(len(orders) > 1 for orders in shipped.values())
    assert any(len(orders) == 1 for orders in shipped.values())
    assert set(refunded) - set(shipped)
    assert set(refunded) & set(shipped)


def test_names_change_over_time(shop: Shop) -> None:
    people, items = defaultdict(set), defaultdict(set)
    for record in records(shop.report(shop.end)):
        if record["customer_id"]:
            people[record["customer_id"]].add((record["first_name"], record["last_name"]))
        items[record["item_id"]].add(record["item_name"])
    assert any(len(names) > 1 for names in people.values())
    assert any(len(names) > 1 for item, names in items.items() if item)


def test_rows_lack_keys_and_spell_instants_in_their_ways(report: Delivery) -> None:
    found = records(report)
    for name in ("customer_id", "item_id", "city_id", "status"):
        assert any(not record[name] for record in found), name
    instants = [record["date_time"] for record in found]
    assert any("T" in each for each in instants)
    assert any(" " in each for each in instants)
    assert any(each.endswith(("Z", "+09:00")) for each in instants)
    assert any("." in each for each in instants)
    assert any(each.endswith("00:00:00") for each in instants)


def test_amounts_have_too_many_decimals_and_some_are_nothing(report: Delivery) -> None:
    amounts = {record["payment_amount"] for record in records(report)}
    assert any(len(each.partition(".")[2]) > 2 and each.endswith("5") for each in amounts)
    quantities = {record["quantity"] for record in records(report)}
    assert {"0", "0.5", "1.2345"} <= quantities


def test_some_lines_can_not_be_used(report: Delivery, increments: list[Delivery]) -> None:
    for made in [report, *(made for made in increments if records(made))]:
        bad = [record for record in records(made) if not _usable(record)]
        assert bad, made.date
        assert len(bad) < 0.2 * len(records(made))


def test_a_day_comes_again_corrected(shop: Shop) -> None:
    day = START + timedelta(days=3)
    first, second, third = (shop.increment(day, version) for version in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.id == second.id != third.id
    before, after = (_by_id(records(made)) for made in (first, second))
    assert set(before) - set(after)
    assert set(after) - set(before)
    assert any(
        _content(before[uniq_id][-1]) != _content(after[uniq_id][-1])
        for uniq_id in set(before) & set(after)
    )


def test_the_year_ends_within_it(report: Delivery) -> None:
    weeks = {day.isocalendar()[:2] for record in records(report) if (day := day_of(record))}
    assert {(2024, 52), (2025, 1)} <= weeks
    assert date(2024, 12, 30) in {day_of(record) for record in records(report)}


def test_the_other_files_are_as_the_contract_has_them(increments: list[Delivery]) -> None:
    for made in increments:
        text = {name: made.files[name].decode("utf-8-sig") for name in FILES[::3] + FILES[2:3]}
        research, prices, activities = (
            list(csv.reader(io.StringIO(text[name], newline="")))
            for name in ("customer_research", "price_log", "user_activity_log")
        )
        assert research[0] == ["date_id", "category_id", "geo_id", "sales_qty", "sales_amt"]
        assert len(research) == 1 + 5 * 3
        assert activities[0][:3] == ["id", "uniq_id", "date_time"]
        assert len(activities) == 1 + 10
        assert len(prices) == 10
        assert {len(row) for row in prices} == {2}


def _by_id(found: list[Record]) -> dict[str, list[Record]]:
    by_id = defaultdict(list)
    for record in found:
        by_id[record["uniq_id"]].append(record)
    return by_id


def _content(record: Record) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in record.items() if name != "id"))


def _usable(record: Record) -> bool:
    """Roughly: enough to tell that there are others."""
    try:
        amounts = [float(record[name]) for name in ("quantity", "payment_amount")]
    except ValueError:
        return False
    return (
        all(0 <= amount < 1e15 for amount in amounts)
        and day_of(record) is not None
        and record.get("status", "") in ("", "shipped", "refunded")
    )
