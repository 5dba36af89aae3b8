"""Usual records: what goes straight to an engine is what Python's csv module reads, and nothing else does."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from datetime import date

import pytest

from ingestion.csv_usual import FEW_RUNS, RUN_BYTES, UnusualError, day_runs, usual_records
from ingestion.sources.orders import CUSTOMER_RESEARCH, ORDER_LOG, PRICE_LOG

COLUMNS = ("id", "uniq_id", "date_time", "city_id", "customer_id", "item_id", "quantity",
           "payment_amount", "status")  # fmt: skip
USUAL = {
    "id": "1",
    "uniq_id": "u-1",
    "date_time": "2024-12-02T10:00:00",
    "city_id": "7",
    "customer_id": "42",
    "item_id": "85123A",
    "quantity": "6",
    "payment_amount": "15.30",
    "status": "shipped",
}
UNUSUAL = [
    {"uniq_id": ""},
    {"uniq_id": '""'},
    {"date_time": ""},
    {"date_time": "yesterday"},
    {"date_time": "02/03/2024"},
    {"date_time": "2024-12-02T24:00:00"},
    {"date_time": "2024-12-02T10:00:60"},
    {"date_time": "2024-12-02T10:00"},
    {"date_time": "2024-12-02T10:00:00Z"},
    {"date_time": "2024-12-02T10:00:00.1234567"},
    {"date_time": "2024-02-30"},
    {"date_time": " 2024-12-02"},
    {"date_time": "9999-12-31T12:00:00"},
    {"date_time": "0001-01-01"},
    {"quantity": ""},
    {"quantity": "-1"},
    {"quantity": "+1"},
    {"quantity": " 1"},
    {"quantity": "0x1F"},
    {"quantity": "1_000"},
    {"quantity": "1e3"},
    {"quantity": "1.2.3"},
    {"quantity": "NaN"},
    {"quantity": "Infinity"},
    {"quantity": "١"},
    {"quantity": "1" * 15},
    {"payment_amount": ".5"},
    {"status": ""},
    {"status": '""'},
    {"status": "Shipped"},
    {"status": "shipped "},
    {"uniq_id": "y" * 1_001},
    {"uniq_id": '"' + "y" * 1_001 + '"'},
    {"item_id": '12" nail'},
    {"item_id": '"12" nail"'},
    {"item_id": '"two\nlines"'},
    {"item_id": "a\rb"},
    {"item_id": "one,more"},
]


def text_of(*records: dict[str, str], end: str = "\n") -> bytes:
    return "".join(",".join({**USUAL, **r}.values()) + end for r in records).encode()


def cut(content: bytes, size: int) -> Iterator[bytes]:
    return (content[n : n + size] for n in range(0, len(content), size))


def parted(content: bytes, size: int = 1 << 17, columns: tuple[str, ...] = COLUMNS) -> list[object]:
    """What `DayRuns.of` makes of a file: its cells by csv's reader, each record with its day."""
    runs = day_runs(ORDER_LOG, columns)
    assert runs is not None
    found: list[object] = []
    for day, records in runs.of(cut(content, size)):
        for *cells, key in csv.reader(io.StringIO(records.decode(), newline=""), strict=True):
            record = dict(zip(runs.columns, cells, strict=True))
            assert record["uniq_id"] == key
            found.append((day, record))
    return found


def test_a_run_is_of_one_day_and_keeps_what_the_contract_knows() -> None:
    second = {"uniq_id": "u-2", "date_time": "2024-12-02"}
    third = {"date_time": "2024-12-03 00:00:00.000001", "item_id": '"a ""b"", c"'}
    content = text_of({}, second, third)
    kept = {name: value for name, value in USUAL.items() if name != "id"}
    expected = [
        (date(2024, 12, 2), kept),
        (date(2024, 12, 2), {**kept, **second}),
        (date(2024, 12, 3), {**kept, **third, "item_id": 'a "b", c'}),
    ]
    for size in (1, 7, 64, 1 << 17):
        assert parted(content, size) == expected
        assert parted(content.removesuffix(b"\n"), size) == expected
        windows = text_of({}, second, third, end="\r\n")
        assert parted(windows, size) == parted(windows.removesuffix(b"\r\n"), size) == expected


@pytest.mark.parametrize("unusual", UNUSUAL, ids=str)
def test_any_other_record_is_left_to_others(unusual: dict[str, str]) -> None:
    for size in (1, 50, 1 << 17):
        for content in (text_of({}, unusual, {}), text_of(unusual), text_of(unusual)[:-1]):
            with pytest.raises(UnusualError):
                parted(content, size)


@pytest.mark.parametrize("cells", ["1,2,3", "1,u,2024-12-02,1,1,1,1,1,shipped,more", "", "\\."])
def test_a_record_of_another_width_is_left_to_others(cells: str) -> None:
    with pytest.raises(UnusualError):
        parted(text_of({}) + cells.encode() + b"\n" + text_of({}))


def test_a_file_that_ends_in_a_record_is_left_to_others() -> None:
    content = text_of({}, {"uniq_id": "u-2"})
    for size in range(len(content) // 2 + 1, len(content) - 8):
        with pytest.raises(UnusualError):
            parted(content[:size])


def test_days_that_lie_scattered_are_left_to_others() -> None:
    few = [{"date_time": f"2024-12-{2 + n % 2:02}"} for n in range(FEW_RUNS)]
    assert len(parted(text_of(*few))) == FEW_RUNS
    with pytest.raises(UnusualError, match="scattered"):
        parted(text_of(*few, {}, {"date_time": "2024-12-09"}))
    # Long runs of days that come again are none of that.
    lines = RUN_BYTES // len(text_of(few[0])) + 100
    runs = [text_of(*[each] * lines) for each in few]
    assert len(parted(b"".join(runs) + text_of(few[0], few[1]))) == FEW_RUNS * lines + 2


@pytest.mark.parametrize(
    "order",
    [
        ("new", *COLUMNS, "newer"),
        tuple(reversed(COLUMNS)),
        ("uniq_id", "new", *(name for name in COLUMNS if name not in ("id", "uniq_id")), "id"),
        tuple(name for name in COLUMNS if name not in ("id", "status")),
    ],
    ids=",".join,
)
def test_columns_may_be_new_absent_or_in_another_order(order: tuple[str, ...]) -> None:
    cells = {**USUAL, "item_id": '"a, b"', "new": '"x, ""y"", 9"', "newer": ""}
    content = (",".join(cells[name] for name in order) + "\n").encode() * 2
    kept = {name: cells[name] for name in order if name in USUAL and name != "id"}
    expected = [(date(2024, 12, 2), {**kept, "item_id": "a, b"})] * 2
    assert parted(content, columns=order) == expected
    assert parted(content, 5, columns=order) == expected


def test_without_identities_there_are_no_runs() -> None:
    assert day_runs(ORDER_LOG, COLUMNS[2:]) is None
    assert day_runs(CUSTOMER_RESEARCH, ("date_id", "category_id", "geo_id")) is None
    assert day_runs(PRICE_LOG, ("item_name", "price")) is None


def test_blocks_of_usual_records_for_texts() -> None:
    usual = usual_records(ORDER_LOG, COLUMNS)
    assert usual.fullmatch(text_of({}, {"uniq_id": ""}, {"status": ""}, {"status": '""'})[:-1])
    quoted = {name: f'"{value}"' for name, value in USUAL.items()}
    assert usual.fullmatch(text_of(quoted))
    for unusual in UNUSUAL:
        if unusual not in ({"uniq_id": ""}, {"uniq_id": '""'}, {"status": ""}, {"status": '""'}):
            # A day that there is not is met by the cast.
            is_usual = unusual == {"date_time": "2024-02-30"}
            assert bool(usual.fullmatch(text_of({}, unusual))) == is_usual, unusual
    research = usual_records(CUSTOMER_RESEARCH, ("date_id", "sales_qty", "sales_amt"))
    assert research.fullmatch(b"2024-12-02T00:00:00,,\n2024-12-02,1,2.50")
    assert not research.fullmatch(b"2024-12-02,-1,2\n")
    assert usual_records(PRICE_LOG, ("item_name", "price")).fullmatch(b"Milk 1%,100\n")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_passes_is_what_csv_reads(seed: int) -> None:
    """Random cells of hostile characters: what is passed on reads as the whole file does."""
    chance = random.Random(seed)
    records = []
    for _ in range(chance.randrange(1, 12)):
        noise = "".join(chance.choice('ab,"\\.\n\r \t;é') for _ in range(chance.randrange(4)))
        # Half of it by the rules of the format, half as it is.
        cell = '"' + noise.replace('"', '""') + '"' if chance.random() < 0.7 else noise
        name = chance.choice(("item_id", "city_id", "id", "uniq_id"))
        records.append({name: cell, "date_time": f"2024-12-0{chance.randrange(2, 5)}"})
    content = text_of(*records)
    try:
        found = parted(content, chance.choice((1, 3, 1 << 17)))
    except UnusualError:
        return
    read = csv.DictReader(io.StringIO(content.decode(), newline=""), COLUMNS, strict=True)
    expected = [
        (date.fromisoformat(r["date_time"]), {n: v for n, v in r.items() if n != "id"})
        for r in read
    ]
    assert found == expected
