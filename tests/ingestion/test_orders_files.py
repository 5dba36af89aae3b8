"""What is in a file of orders: its columns, its cells, which of them are used and which set aside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from ingestion import s3 as s3_module
from sandbox import shop as made_up
from tests.ingestion.orders_scene import (
    COLUMNS,
    ORDERS,
    Shop,
    file_of,
    increment,
    line,
    report,
    text_of,
)
from tests.ingestion.scene import DEC, at, december, having, quarantine

# A line that COPY or a check refuses sends the whole file another way; the rows must be the same.
MALFORMED = "too,few,cells\n"
NEEDED = ("date_time", "city_id", "customer_id", "item_id", "quantity", "payment_amount")


def land(shop: Shop, content: str | bytes, *key: object) -> dict[str, Any]:
    """Land an order file as the increment of 5 December; returns the command's answer."""
    data = content.encode() if isinstance(content, str) else content
    if not shop.files():
        shop.deliver(report(1, 1, file_of()))
    shop.deliver(increment(5, {ORDERS: data}, data, *key))
    return shop.land(5)


def cells(shop: Shop, *names: str) -> list[tuple[Any, ...]]:
    """Some columns of the landed rows, in the file's order."""
    return [tuple(row[name] for name in names) for row in shop.rows()]


# --- columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("malformed", ["", MALFORMED], ids=["straight", "told apart"])
def test_columns_in_any_order_absent_or_new(shop: Shop, malformed: str) -> None:
    lines = [line(f"u-{n}", item_name='a "quoted", name\nin two lines', new="x") for n in range(3)]
    reordered = ("status", "new", *reversed(COLUMNS[:-1]), "newer")
    usual = []
    for columns, end in product((COLUMNS, reordered), ("\n", "\r\n")):
        for start in ("", "\ufeff"):
            content = start + text_of(lines, columns, end)
            land(shop, content + malformed + content.partition(end)[2].removesuffix(end))
            usual.append(shop.rows())
    assert all(rows == usual[0] for rows in usual)
    assert len(usual[0]) == 6
    assert usual[0][0] == {
        "ds": DEC[5],
        "slot_kind": "increment",
        "slot_date": DEC[5],
        "line_no": 1,
        "order_id": "u-0",
        "uniq_id": "u-0",
        "date_time": at("2024-12-05T09:00"),
        "city_id": "2",
        "city_name": "Ярославль",
        "customer_id": "7",
        "first_name": "Пётр",
        "last_name": "Сидоров",
        "item_id": "3",
        "item_name": 'a "quoted", name\nin two lines',
        "quantity": Decimal("2.000"),
        "payment_amount": Decimal("90.50"),
        "status": "shipped",
    }
    assert [row["line_no"] for row in usual[0]] == [
        1,
        2,
        3,
        *((5, 6, 7) if malformed else (4, 5, 6)),
    ]


def test_only_the_needed_columns(shop: Shop) -> None:
    land(shop, text_of([line()], NEEDED))
    row = shop.rows()[0]
    assert row["status"] == "shipped"
    assert [row[name] for name in ("uniq_id", "city_name", "first_name", "item_name")] == [None] * 4


@pytest.mark.parametrize("other", ["", "x"], ids=["straight", "judged"])
def test_empty_cells_are_null_quoted_or_not(shop: Shop, other: str) -> None:
    header = text_of([])
    empty = '1,u-1,2024-12-05T12:00:00,,"",,"","",,"",2,0,""\n'
    bad = f"1,u-2,2024-12-05T12:00:00,,,,,,,,{other},0,\n"
    answer = land(shop, header + empty + (bad if other else ""))
    assert answer["quarantined"] == len(other)
    names = (
        "city_id",
        "city_name",
        "customer_id",
        "first_name",
        "last_name",
        "item_id",
        "item_name",
    )
    assert cells(shop, *names, "status") == [(*[None] * 7, "shipped")]


def test_blanks_and_quotes_are_text(shop: Shop) -> None:
    names = [" two ", "NULL", "\\N", "\\.", "a\rb", "'", 'x"y', "\t", "测试 😀"]
    lines = [line(f"u-{n}", item_name=name) for n, name in enumerate(names)]
    for malformed in ("", MALFORMED):
        land(shop, text_of(lines).replace("\r\n", "\n") + malformed)
        assert [name for (name,) in cells(shop, "item_name")] == names


def test_a_line_of_backslash_and_dot_ends_nothing(shop: Shop) -> None:
    """Older servers take it for the end of the data."""
    content = text_of([line("a")]) + "\\.\n" + text_of([line("b")]).partition("\n")[2]
    assert land(shop, content)["quarantined"] == 1
    assert cells(shop, "uniq_id") == [("a",), ("b",)]


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [[], [line("bad", quantity=-1)]], ids=["straight", "judged"])
def test_numbers_are_rounded_half_away_from_zero(
    shop: Shop, other: list[dict[str, object]]
) -> None:
    amounts = ["0.005", "2.345", "2.3449999", "0", "7", "1e2", "9999999999999999.99", "+1.5", " 3 "]
    usable = [line(f"u-{n}", payment_amount=a) for n, a in enumerate(amounts)]
    thousandths = line("q", quantity="1.0005", payment_amount="1.004999")
    land(shop, text_of([*usable, thousandths, *other]))
    assert [str(amount) for (amount,) in cells(shop, "payment_amount")] == [
        "0.01",
        "2.35",
        "2.34",
        "0.00",
        "7.00",
        "100.00",
        "9999999999999999.99",
        "1.50",
        "3.00",
        "1.00",
    ]
    assert str(cells(shop, "quantity")[-1][0]) == "1.001"


INSTANTS = {
    "2024-12-05T00:00:00": ("2024-12-04T21:00", 5),
    "2024-12-05 23:59:59.999999": ("2024-12-05T20:59:59.999999", 5),
    "2024-12-05": ("2024-12-04T21:00", 5),
    "2024-12-05T22:30:00Z": ("2024-12-05T22:30", 6),
    "2024-12-05T01:30:00+05:00": ("2024-12-04T20:30", 4),
    "2024-12-05 12:30": ("2024-12-05T09:30", 5),
    "2024-12-05T12:30:00.5": ("2024-12-05T09:30:00.5", 5),
}


@pytest.mark.parametrize("alone", [True, False])
def test_instants_are_of_the_business_zone(shop: Shop, alone: bool) -> None:
    for few in [[text] for text in INSTANTS] if alone else [list(INSTANTS)]:
        land(shop, text_of([line(f"u-{n}", date_time=text) for n, text in enumerate(few)]))
        expected = [(at(INSTANTS[text][0]), DEC[INSTANTS[text][1]]) for text in few]
        assert cells(shop, "date_time", "ds") == expected


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"date_time": None}, "date_time is empty"),
    *(
        ({"date_time": text}, "date_time is no instant")
        for text in (
            "yesterday",
            "now",
            "infinity",
            "05.12.2024",
            "12/05/2024",
            "2024-02-30T00:00:00",
            "2024-12-05T25:00:00",
            "0000-12-05",
            "12024-12-05",
            "9999-12-31T12:00:00",
            "9999-12-31T23:59:59-05:00",
            "0001-01-01T00:00:00+05",
            "2024-12-05 BC",
            "20241205",
        )
    ),
    ({"quantity": None}, "quantity is empty"),
    ({"quantity": "0x1F"}, "quantity is no number"),
    ({"quantity": "1_000"}, "quantity is no number"),
    ({"quantity": "1,5"}, "quantity is no number"),
    ({"quantity": "."}, "quantity is no number"),
    ({"quantity": "1.2.3"}, "quantity is no number"),
    ({"quantity": "-1"}, "quantity is less than 0"),
    ({"quantity": "999999999999999.9995"}, "quantity is too great"),
    ({"payment_amount": None}, "payment_amount is empty"),
    ({"payment_amount": "NaN"}, "payment_amount is no number"),
    ({"payment_amount": "Infinity"}, "payment_amount is no number"),
    ({"payment_amount": "1e400"}, "payment_amount is too great"),
    ({"payment_amount": "-0.001"}, "payment_amount is less than 0"),
    ({"payment_amount": "9999999999999999.995"}, "payment_amount is too great"),
    ({"status": "SHIPPED"}, "status is none of shipped, refunded"),
    ({"status": " "}, "status is none of shipped, refunded"),
]


def test_what_can_not_be_used_is_set_aside(shop: Shop) -> None:
    lines = [line(f"u-{n}", **unusable) for n, (unusable, _) in enumerate(UNUSABLE)]
    good = [line("good"), line("refund", status="refunded")]
    content = text_of([*good, *lines])
    expected = [(number, reason) for number, (_, reason) in enumerate(UNUSABLE, 3)]
    answer = land(shop, content)
    assert (answer["rows_landed"], answer["quarantined"]) == (2, len(UNUSABLE))
    assert sorted(shop.reasons()) == expected
    kept = {row["place"]: row for row in quarantine(shop.vitrina)}
    (place,) = (place for place in kept if place.endswith("/user_order_log_inc.csv:3"))
    row = kept[place]
    assert (row["source"], row["encoding"]) == ("orders", "text")
    assert json.loads(row["payload"])["uniq_id"] == "u-0"
    assert list(json.loads(row["payload"])) == list(COLUMNS)
    # The same again is kept once.
    assert shop.land(5, 5, "--again")["quarantined"] == len(UNUSABLE)
    assert sorted(shop.reasons()) == expected


def test_each_of_these_alone_is_set_aside_too(shop: Shop) -> None:
    """Nothing passes the checks of the straight way that the judge would set aside."""
    for number, (unusable, reason) in enumerate(UNUSABLE):
        answer = land(shop, text_of([line(), line(**unusable)]), number)
        assert (answer["rows_landed"], answer["quarantined"]) == (1, 1), unusable
        assert shop.reasons()[-1] == (2, reason)


def test_malformed_lines_are_set_aside_with_their_bytes(shop: Shop) -> None:
    header, first, second = text_of([line("a"), line("b")]).encode().splitlines()
    bad = [b"1,2,3", first + b",more", first.replace(b"a,", b"\xff,", 1), first + b"\0", b'x,12" y']
    answer = land(shop, b"\n".join([header, *bad, first, b"", second, b""]))
    assert (answer["rows_landed"], answer["quarantined"]) == (2, 6)
    assert cells(shop, "uniq_id", "line_no") == [("a", 6), ("b", 8)]
    assert sorted(shop.reasons()) == [
        (1, "3 cells where the file has 13 columns"),
        (2, "14 cells where the file has 13 columns"),
        (3, "text that is not UTF-8"),
        (4, "text with U+0000"),
        (5, "a quote that is neither around a cell nor doubled"),
        (7, "1 cells where the file has 13 columns"),
    ]
    kept = sorted(quarantine(shop.vitrina), key=lambda row: row["place"])
    assert [row["encoding"] for row in kept] == ["text", "text", "base64", "base64", "text", "text"]
    assert [base64.b64decode(row["payload"]) for row in kept[2:4]] == bad[2:4]
    assert [kept[n]["payload"].encode() for n in (0, 1, 4, 5)] == [bad[0], bad[1], bad[4], b""]


def test_other_files_have_rules_too(shop: Shop) -> None:
    shop.deliver(report(1, 1, file_of()))
    shop.deliver(
        increment(
            5,
            {
                **file_of(line()),
                "customer_research": b"geo_id,date_id,sales_qty,sales_amt,category_id\n"
                b"1,2024-12-05T00:00:00,,-2.005,c\n2,never,1,1,c\n3,2024-12-04,x,1,c\n",
                "user_activity_log": b"id,date_time,quantity\n1,2024-12-05T23:00:00Z,-1\n2,,1\n",
                "price_log": "Молоко,10.005\nХлеб,дорого\n,\n".encode(),
            },
        )
    )
    answer = shop.land(5)
    assert (answer["rows_landed"], answer["quarantined"]) == (5, 4)
    assert sorted(reason for _, reason in shop.reasons()) == [
        "date_id is no instant",
        "date_time is empty",
        "price is no number",
        "sales_qty is no number",
    ]
    query = shop.vitrina.query
    assert query("select ds, category_id, sales_qty, sales_amt from raw.customer_research") == [
        {"ds": DEC[5], "category_id": "c", "sales_qty": None, "sales_amt": Decimal("-2.01")}
    ]
    assert query("select ds, uniq_id, quantity::int as quantity from raw.user_activity_log") == [
        {"ds": DEC[6], "uniq_id": None, "quantity": -1}
    ]
    assert query("select item_name, price, line_no from raw.price_log order by 3") == [
        {"item_name": "Молоко", "price": Decimal("10.01"), "line_no": 1},
        {"item_name": None, "price": None, "line_no": 3},
    ]


# --- identity ---------------------------------------------------------------------------------------


def hashed(values: Sequence[str | None]) -> str:
    text = "\x1f".join("\x1e" if value is None else value for value in values)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_without_an_id_the_identity_is_a_hash_of_all_else(shop: Shop) -> None:
    lines = [
        line("kept"),
        line(None or "", item_name=None, date_time="2024-12-05T12:00:00.5", quantity="1.50"),
        line("", id=7, status=None),
        line("", id=8),
    ]
    land(shop, text_of(lines))
    same = ["2", "Ярославль", "7", "Пётр", "Сидоров", "3"]
    by_hand = [
        ("kept", "kept"),
        (hashed(["2024-12-05 09:00:00.500000", *same, None, "1.500", "90.50", "shipped"]), None),
        (hashed(["2024-12-05 09:00:00.000000", *same, "Ручка", "2.000", "90.50", "shipped"]), None),
    ]
    assert cells(shop, "order_id", "uniq_id") == [*by_hand, by_hand[2]]
    assert shop.winners()[by_hand[2][0]] == ("increment", DEC[5], DEC[5], 4)
    # So it is without the column, and when the file goes another way.
    names = [name for name in COLUMNS if name != "uniq_id"]
    for malformed in ("", MALFORMED):
        land(shop, text_of(lines, names) + malformed)
        assert [i for (i,) in cells(shop, "order_id")][1:] == [by_hand[1][0], *[by_hand[2][0]] * 2]


@pytest.mark.parametrize("name", ["\x1e\x1e", "\\N", "NULL", "ᴺᵁᴸᴸ", "\x1e"])
def test_no_text_but_the_empty_one_is_a_null(shop: Shop, name: str) -> None:
    """Two record separators once were one on ClickHouse."""
    land(shop, text_of([line("a", item_name=name), line("b", item_name=None)]))
    assert cells(shop, "item_name") == [(name,), (None,)]


def test_rows_of_other_days_stay_where_they_are(shop: Shop) -> None:
    lines = [line("a"), line("b", "2023-01-07"), line("c", "2024-12-31"), line("a", "2024-12-04")]
    answer = land(shop, text_of(lines))
    assert answer["days_changed"] == ["2023-01-07", *december(4, 5, 31)]
    assert cells(shop, "ds", "order_id", "line_no")[3] == (DEC[4], "a", 4)
    leaves = {
        "postgres": "select count(*) as n from pg_inherits"
        " where inhparent = 'raw.user_order_log'::regclass",
        "clickhouse": "select uniqExact(partition) as n from system.parts"
        " where active and database = 'raw' and table = 'user_order_log'",
    }[shop.vitrina.engine]
    assert shop.vitrina.query(leaves) == [{"n": 4}]
    assert land(shop, text_of([]))["days_changed"] == ["2023-01-07", *december(4, 5, 31)]
    assert shop.vitrina.query(leaves) == [{"n": 0}]


# --- the made-up shop, by every way -----------------------------------------------------------------


def test_every_way_gives_the_same_rows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator's files as they are, and with a line at the end that only Python can tell; read
    in chunks of odd sizes."""
    world = made_up.Shop(seed=5, start=DEC[3], days=6)
    files = dict(world.report(DEC[8]).files)
    states = []
    for size, tail in ((1 << 17, b""), (997, b""), (997, MALFORMED.encode())):
        monkeypatch.setattr(s3_module, "CHUNK_BYTES", size)
        shop.forget()
        shop.deliver(report(3, 8, {ORDERS: files[ORDERS] + tail}, size, tail))
        answer = shop.land_report()
        rows = [tuple(row.values()) for row in shop.rows()]
        states.append((rows, shop.winners(), answer["quarantined"] - len(tail and b"1")))
    assert states[0] == states[1] == states[2]
    assert len(states[0][0]) > 100


def test_another_zone_cuts_other_days(shop: Shop) -> None:
    far = Shop(having(shop.vitrina, BUSINESS_TIMEZONE="America/New_York"), shop.reports, shop.s3)
    lines = [
        line("a", date_time="2024-12-05T20:00:00"),
        line("b", date_time="2024-12-06T03:00:00Z"),
    ]
    land(far, text_of(lines))
    assert cells(far, "date_time", "ds") == [
        (at("2024-12-06T01:00"), DEC[5]),
        (at("2024-12-06T03:00"), DEC[5]),
    ]
    assert DEC[5] + timedelta(1) == DEC[6]


@pytest.mark.parametrize("key", [(), ("uniq_id",)], ids=["keyed", "not keyed"])
def test_the_last_instant_of_a_day_is_of_the_next_one(shop: Shop, key: tuple[str, ...]) -> None:
    """PostgreSQL takes 24:00 and a sixtieth second for the day after."""
    lines = [
        line("a", date_time="2024-12-05T24:00:00"),
        line("b", date_time="2024-12-05T23:59:60"),
    ]
    for each in lines:
        land(shop, text_of([each], columns=[c for c in COLUMNS if c not in key]))
        assert cells(shop, "date_time", "ds") == [(at("2024-12-05T21:00"), DEC[6])]


@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_quoted_identity_is_the_same_one(shop: Shop, place: int) -> None:
    """Wherever its column stands: a pattern once found an empty cell before the quote."""
    order = [name for name in COLUMNS if name != "uniq_id"]
    order.insert(place, "uniq_id")
    ids = ["plain", "b, c", 'd, ""e"" f', "quoted"]
    content = text_of([line(each.replace('""', '"')) for each in ids], columns=order)
    land(shop, content.replace("quoted", '"quoted"'))
    expected = ["plain", "b, c", 'd, "e" f', "quoted"]
    assert cells(shop, "order_id", "uniq_id") == [(each, each) for each in expected]


def test_an_id_that_no_index_takes_is_set_aside(shop: Shop) -> None:
    """One of 8,000 characters once stopped its whole delivery on PostgreSQL."""
    longest = "".join(chr(33 + n * n % 1_600) for n in range(8_000)).replace('"', "")
    content = text_of(
        [line("a"), line(longest), line("я" * 501), line("y" * 1_001), line("b" * 1_000)]
    )
    answer = land(shop, content)
    assert (answer["rows_landed"], answer["quarantined"]) == (2, 3)
    assert {reason for _, reason in shop.reasons()} == {"uniq_id is longer than 1000 bytes"}
    assert {key for (key,) in cells(shop, "order_id")} == {"a", "b" * 1_000}
