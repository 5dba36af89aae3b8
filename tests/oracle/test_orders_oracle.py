"""The orders oracle against cases worked by hand: every expected number is a literal."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from sandbox.dbt import ROOT

from .orders import (
    INCREMENT,
    REPORT,
    CityRow,
    CustomerRow,
    Delivery,
    ItemRetentionRow,
    ItemRow,
    Order,
    Quarantined,
    RawActivity,
    RawCopy,
    RawPrice,
    RawResearch,
    RefusedFileError,
    RetentionRow,
    SaleRow,
    Tables,
    calendar,
    changed_days,
    differences,
    holding_orders,
    raw,
    read_orders,
    tables,
)

BERLIN = ZoneInfo("Europe/Berlin")
REAL = ROOT.parent / "shared" / "data" / "orders"

HEADER = "uniq_id,date_time,city_id,customer_id,item_id,quantity,payment_amount,status"
NEEDED = "date_time,city_id,customer_id,item_id,quantity,payment_amount"


def file(*lines: str, header: str = HEADER) -> bytes:
    return "".join(f"{line}\n" for line in (header, *lines)).encode()


def line(
    uniq_id: str = "a",
    at: str = "2024-02-07T12:00:00",
    city: str = "1",
    customer: str = "c1",
    item: str = "i1",
    quantity: str = "1",
    amount: str = "100",
    status: str = "shipped",
) -> str:
    return ",".join((uniq_id, at, city, customer, item, quantity, amount, status))


def report(*lines: str) -> Delivery:
    return Delivery(REPORT, None, {"user_order_log": file(*lines)})


def increment(day: str, *lines: str) -> Delivery:
    return Delivery(INCREMENT, date.fromisoformat(day), {"user_order_log_inc": file(*lines)})


def computed(*lines: str) -> Tables:
    return tables([report(*lines)])


def amounts(*deliveries: Delivery) -> dict[str, Decimal]:
    return {row.order_id: row.payment_amount for row in tables(deliveries).f_sales}


def only(data: bytes, zone: ZoneInfo | None = None) -> Order:
    orders, quarantined = read_orders(data, zone) if zone else read_orders(data)
    assert quarantined == []
    assert len(orders) == 1
    return orders[0]


def usable(header: str, *lines: str) -> tuple[int, list[int]]:
    orders, quarantined = read_orders(file(*lines, header=header))
    return len(orders), quarantined


# --- files ----------------------------------------------------------------------------------------


def test_a_line_is_typed() -> None:
    data = file(
        "7,u1,2024-02-07T00:30:00,2,Ярославль,7702,Константин,Соколов,1,Молоко 3%,4,480",
        header="id,uniq_id,date_time,city_id,city_name,customer_id,first_name,last_name,"
        "item_id,item_name,quantity,payment_amount",
    )
    assert only(data) == Order(
        line_no=1,
        order_id="u1",
        uniq_id="u1",
        ds=date(2024, 2, 7),
        date_time=datetime(2024, 2, 6, 21, 30, tzinfo=UTC),
        city_id="2",
        city_name="Ярославль",
        customer_id="7702",
        first_name="Константин",
        last_name="Соколов",
        item_id="1",
        item_name="Молоко 3%",
        quantity=Decimal("4.000"),
        payment_amount=Decimal("480.00"),
        status="shipped",
    )


def test_bom_and_crlf_and_a_missing_last_newline_are_legal() -> None:
    plain = file(line("a"), line("b"))
    assert read_orders(plain)[0] == read_orders(b"\xef\xbb\xbf" + plain)[0]
    crlf = plain.replace(b"\n", b"\r\n")
    assert read_orders(crlf) == read_orders(plain)
    assert read_orders(crlf[:-1]) == read_orders(plain)
    assert read_orders(crlf[:-2]) == read_orders(plain)
    assert read_orders(plain[:-1]) == read_orders(plain)


def test_columns_come_in_any_order_and_unknown_ones_are_ignored() -> None:
    header = "payment_amount,coupon,quantity,item_id,customer_id,city_id,date_time,uniq_id"
    order = only(file("100.5,X,2,i1,c1,1,2024-02-07T12:00:00,a", header=header))
    assert (order.order_id, order.payment_amount, order.quantity) == (
        "a",
        Decimal("100.50"),
        Decimal("2.000"),
    )
    assert (order.city_id, order.customer_id, order.item_id) == ("1", "c1", "i1")


def test_an_empty_cell_is_null_quoted_or_not() -> None:
    order = only(file(line(city="", customer='""', item="")))
    assert (order.city_id, order.customer_id, order.item_id) == (None, None, None)


def test_text_is_kept_as_it_is() -> None:
    order = only(file(line(customer=" C1 ", item='"a ""b"", c\nd"', city="007")))
    assert (order.city_id, order.customer_id, order.item_id) == ("007", " C1 ", 'a "b", c\nd')


def test_records_are_counted_and_not_lines() -> None:
    lines = [line("a", item='"two\nlines"'), line("b", quantity="?"), line("c")]
    orders, quarantined = read_orders(file(*lines))
    assert [(order.order_id, order.line_no) for order in orders] == [("a", 1), ("c", 3)]
    assert quarantined == [2]


def test_a_header_alone_is_an_empty_day() -> None:
    assert read_orders(file()) == ([], [])
    assert read_orders(file()[:-1]) == ([], [])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="a blank header"),
        pytest.param(file(header=line()), id="no header"),
        pytest.param(file(line(), line("b"))[:-20], id="the last line is cut"),
        pytest.param(file(line(), '"b,2024-02-07'), id="an open quote"),
        pytest.param(file(line(), '"b')[:-1], id="an open quote in the last cell"),
        *(
            pytest.param(file(header=HEADER.replace(column, "other")), id=f"no {column}")
            for column in NEEDED.split(",")
        ),
        pytest.param(file(header=HEADER + ",uniq_id"), id="a column twice"),
    ],
)
def test_a_broken_file_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedFileError):
        read_orders(data)
    with pytest.raises(RefusedFileError):
        tables([report(line()), Delivery(INCREMENT, date(2024, 2, 7), {"user_order_log": data})])


def test_a_refused_file_refuses_its_whole_delivery() -> None:
    files = {"user_order_log": file(line()), "customer_research": b"date_id,sales_qty\n2024"}
    with pytest.raises(RefusedFileError):
        tables([Delivery(REPORT, None, files)])


@pytest.mark.parametrize(
    "bad",
    [
        line(at=""),
        line(at="yesterday"),
        line(at="2024-02-30T00:00:00"),
        line(at="07.02.2024"),
        line(quantity=""),
        line(quantity="-1"),
        line(quantity="NaN"),
        line(quantity="Infinity"),
        line(quantity="many"),
        line(quantity="1_0"),
        line(quantity="1e15"),
        line(quantity="999999999999999.9995"),  # rounds to 10^15, which numeric(18,3) can't hold
        line(amount=""),
        line(amount="-0.001"),
        line(amount="-inf"),
        line(amount="1e16"),
        line(amount="9999999999999999.995"),
        line(amount="1e999999999"),
        line(status="Shipped"),
        line(status="cancelled"),
        line(status=" shipped"),
        "a,2024-02-07T12:00:00,1",
        line() + ",more",
        "",
        line(item="a\0b"),
        line(item='x"y"'),
        line(item='"x"y'),
    ],
)
def test_a_line_that_can_not_be_used_is_quarantined(bad: str) -> None:
    lines = [line("first"), bad, line("last")]
    orders, quarantined = read_orders(file(*lines))
    assert [order.order_id for order in orders] == ["first", "last"]
    assert quarantined == [2]


def test_invalid_utf8_is_quarantined_in_its_own_line_only() -> None:
    data = file(line("a"), line("b", item="?"), line("c")).replace(b"?", b"\xff")
    orders, quarantined = read_orders(data)
    assert [order.order_id for order in orders] == ["a", "c"]
    assert quarantined == [2]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0.00"),
        ("-0", "0.00"),
        ("0.004", "0.00"),
        ("0.005", "0.01"),
        ("2.675", "2.68"),
        ("2.665", "2.67"),
        ("1.0049999999999999999999999999999999999", "1.00"),
        ("9999999999999999.99", "9999999999999999.99"),
        ("+5.", "5.00"),
        (".5", "0.50"),
        ("1.25e2", "125.00"),
    ],
)
def test_money_is_rounded_half_away_from_zero_to_cents(text: str, amount: str) -> None:
    order = only(file(line(amount=text)))
    assert str(order.payment_amount) == amount


def test_a_refund_is_rounded_away_from_zero_too() -> None:
    row = computed(line(amount="2.675", quantity="0.0005", status="refunded")).f_sales[0]
    assert (str(row.payment_amount), str(row.quantity)) == ("-2.68", "-0.001")


def test_status_missing_or_empty_is_shipped() -> None:
    assert only(file(line(status=""))).status == "shipped"
    assert only(file("2024-02-07,1,c1,i1,1,100", header=NEEDED)).status == "shipped"
    assert only(file(line(status="refunded"))).status == "refunded"


def test_only_needed_columns() -> None:
    order = only(file("2024-02-07T12:00:00,,,,1,100", header=NEEDED))
    assert (order.uniq_id, order.city_name, order.first_name, order.item_name) == (None,) * 4
    assert (order.city_id, order.customer_id, order.item_id) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "zone", "instant", "ds"),
    [
        # Moscow is UTC+3: 8 February ends at 21:00 UTC
        ("2024-02-08T23:59:59.999999", None, "2024-02-08 20:59:59.999999", "2024-02-08"),
        ("2024-02-09T00:00:00", None, "2024-02-08 21:00:00", "2024-02-09"),
        ("2024-02-09", None, "2024-02-08 21:00:00", "2024-02-09"),
        ("2024-02-09 00:00:00.5", None, "2024-02-08 21:00:00.500000", "2024-02-09"),
        # with an offset it is converted
        ("2024-02-08T21:00:00Z", None, "2024-02-08 21:00:00", "2024-02-09"),
        ("2024-02-09T01:00:00+05:00", None, "2024-02-08 20:00:00", "2024-02-08"),
        # summer in Moscow was UTC+4 until 2010, and UTC+4 all the year from 27 March 2011
        ("2010-07-01T00:00:00", None, "2010-06-30 20:00:00", "2010-07-01"),
        ("2011-12-01T00:00:00", None, "2011-11-30 20:00:00", "2011-12-01"),
        ("2010-12-01T00:00:00", None, "2010-11-30 21:00:00", "2010-12-01"),
        ("2024-07-01T00:30:00", BERLIN, "2024-06-30 22:30:00", "2024-07-01"),
    ],
)
def test_naive_instants_are_of_the_business_zone(
    text: str, zone: ZoneInfo | None, instant: str, ds: str
) -> None:
    order = only(file(line(at=text)), zone)
    assert order.date_time == datetime.fromisoformat(instant).replace(tzinfo=UTC)
    assert order.ds == date.fromisoformat(ds)


def test_lines_of_the_other_files_are_quarantined_too() -> None:
    research = file(
        "2024-02-07T00:00:00,1,1,2,2024",
        ",1,1,2,2024",
        "2024-02-07T00:00:00,1,1,,",
        "2024-02-07T00:00:00,1,1,x,2024",
        "2024-02-07T00:00:00,1,1,2",
        header="date_id,category_id,geo_id,sales_qty,sales_amt",
    )
    activity = file(
        "1,u,2024-02-07T00:00:00,0,581,21",
        "2,u,later,0,581,21",
        header="id,uniq_id,date_time,action_id,customer_id,quantity",
    )
    prices = "Хлеб,20\r\nМолоко,x\r\nСахар,\r\n".encode()
    orders = file(line("a"), line("b", quantity="-1"))
    day = date(2024, 2, 7)
    delivery = Delivery(
        INCREMENT,
        day,
        {
            "custom_research_inc.csv": research,
            "user_activity_log_inc": activity,
            "price_log_inc": prices,
            "user_orders_log_inc": orders,
        },
    )
    assert tables([delivery]).quarantined == [
        Quarantined(INCREMENT, day, "customer_research", 2),
        Quarantined(INCREMENT, day, "customer_research", 4),
        Quarantined(INCREMENT, day, "customer_research", 5),
        Quarantined(INCREMENT, day, "price_log", 2),
        Quarantined(INCREMENT, day, "user_activity_log", 2),
        Quarantined(INCREMENT, day, "user_order_log", 2),
    ]


def test_mistake_o16_a_file_without_a_header_keeps_its_first_row() -> None:
    bad_first = Delivery(REPORT, None, {"price_log": b"Bread,x\nMilk,1\n"})
    assert tables([bad_first]).quarantined == [Quarantined(REPORT, None, "price_log", 1)]
    assert tables([Delivery(REPORT, None, {"price_log": b""})]).quarantined == []
    with pytest.raises(RefusedFileError):
        tables([Delivery(REPORT, None, {"price_log": b"Bread,20\nMilk"})])


def test_mistake_o16_names_are_not_cut() -> None:
    name = "Устройство для нагревания табака Трубка Мира"
    header = NEEDED + ",item_name,first_name,last_name,city_name"
    data = file(f"2024-02-07,1,c1,i1,1,100,{name},{name},{name},{name}", header=header)
    found = tables([Delivery(REPORT, None, {"user_order_log": data})])
    assert found.d_item == [ItemRow("i1", name)]
    assert found.d_customer == [CustomerRow("c1", name, name)]
    assert found.d_city == [CityRow("1", name)]


def test_the_raw_tables_hold_the_usable_lines_of_each_slot() -> None:
    research = "date_id,geo_id,sales_qty,sales_amt,category_id\n2024-02-08,1,2.0005,20.245,\n"
    activity = "date_time,uniq_id,quantity,customer_id\n2024-02-08T00:00:00,u,,581\n,u,1,1\n"
    files = {
        "user_order_log": file(line("a"), line("a", at="2024-02-08"), line("a", amount="7")),
        "customer_research": research.encode(),
        "user_activity_log": activity.encode(),
        "price_log": "Хлеб,20.005\n,1\n".encode(),
    }
    day = date(2024, 2, 7)
    slot = (INCREMENT, day)
    found = raw([report(line("b")), Delivery(*slot, files)])
    assert [(row.slot_date, row.line_no, row.order_id) for row in found.user_order_log] == [
        (None, 1, "b"),
        (day, 1, "a"),
        (day, 2, "a"),
        (day, 3, "a"),
    ]
    assert found.order_copies == [
        RawCopy("b", date(2024, 2, 7), REPORT, None, 1),
        RawCopy("a", date(2024, 2, 7), *slot, 3),
        RawCopy("a", date(2024, 2, 8), *slot, 2),
    ]
    assert found.customer_research == [
        RawResearch(*slot, 1, date(2024, 2, 8), None, "1", Decimal("2.001"), Decimal("20.25"))
    ]
    midnight = datetime(2024, 2, 7, 21, tzinfo=UTC)
    assert found.user_activity_log == [
        RawActivity(*slot, 1, date(2024, 2, 8), "u", midnight, None, "581", None)
    ]
    assert found.price_log == [
        RawPrice(*slot, 1, "Хлеб", Decimal("20.01")),
        RawPrice(*slot, 2, None, Decimal("1.00")),
    ]


# --- identity -------------------------------------------------------------------------------------


def test_mistake_o04_copies_of_one_uniq_id_are_one_order() -> None:
    found = computed(*[line("a", amount="100")] * 4, line("b", amount="7"))
    assert [(row.order_id, row.payment_amount) for row in found.f_sales] == [
        ("a", Decimal("100.00")),
        ("b", Decimal("7.00")),
    ]


def test_the_last_line_of_a_file_holds() -> None:
    lines = [line("a", amount="1"), line("a", amount="3"), line("a", amount="2")]
    assert amounts(report(*lines)) == {"a": Decimal("2.00")}


def test_a_last_line_in_quarantine_holds_nothing() -> None:
    lines = [line("a", amount="1"), line("a", amount="-2")]
    assert amounts(report(*lines)) == {"a": Decimal("1.00")}


def test_the_identity_goes_over_days_and_statuses() -> None:
    lines = [
        line("a", at="2024-02-07", amount="1"),
        line("a", at="2024-01-01", amount="2", status="refunded"),
    ]
    row = computed(*lines).f_sales[0]
    assert len(computed(*lines).f_sales) == 1
    assert (row.ds, row.status, row.payment_amount) == (
        date(2024, 1, 1),
        "refunded",
        Decimal("-2.00"),
    )


def test_a_refund_is_a_row_of_its_own() -> None:
    found = computed(line("a"), line("b", status="refunded", quantity="2", amount="30"))
    assert [(row.order_id, row.quantity, row.payment_amount) for row in found.f_sales] == [
        ("a", Decimal("1.000"), Decimal("100.00")),
        ("b", Decimal("-2.000"), Decimal("-30.00")),
    ]


def test_without_uniq_id_the_hash_is_to_the_letter() -> None:
    header = "id,date_time,city_id,city_name,customer_id,first_name,item_id,quantity,payment_amount"
    data = file("1,2024-02-07T12:00:00,2,Ярославль,7702,,1,4,480.1", header=header)
    text = (
        "2024-02-07 09:00:00.000000\x1f2\x1fЯрославль\x1f7702\x1f\x1e\x1f\x1e\x1f1\x1f\x1e"
        "\x1f4.000\x1f480.10\x1fshipped"
    )
    order = only(data)
    assert order.uniq_id is None
    assert order.order_id == hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    assert order.order_id == "77ec373b22271932f29bd6fc3e52196a"  # md5sum


def test_an_empty_uniq_id_is_hashed_as_if_the_column_were_missing() -> None:
    with_column = only(file(line("")))
    without = only(file("2024-02-07T12:00:00,1,c1,i1,1,100", header=NEEDED))
    assert with_column.order_id == without.order_id != ""


def test_the_hash_is_of_the_typed_values() -> None:
    def identity(row: str) -> str:
        return only(file(row, header=NEEDED)).order_id

    one = identity("2024-02-07T12:00:00,1,c1,i1,1,100")
    assert identity("2024-02-07 12:00:00.000,1,c1,i1,1.0,1e2") == one
    assert identity("2024-02-07T09:00:00Z,1,c1,i1,1.0004,99.995") == one
    assert identity("2024-02-07T12:00:00,01,c1,i1,1,100") != one
    assert identity("2024-02-07T12:00:00,1,c1,i1,1,100.01") != one
    assert identity("2024-02-07T12:00:00,,1c1,i1,1,100") != one


def test_the_line_number_is_not_in_the_hash_and_identical_rows_collapse() -> None:
    header = "id," + NEEDED
    lines = [f"{n},2024-02-07T12:00:00,1,c1,i1,1,100" for n in (1, 2, 3)]
    data = file(*lines, header=header)
    assert len({order.order_id for order in read_orders(data)[0]}) == 1
    assert [
        o.line_no for o in holding_orders([Delivery(REPORT, None, {"user_order_log": data})])
    ] == [3]


def test_columns_out_of_contract_are_not_in_the_hash() -> None:
    header = NEEDED + ",coupon"
    lines = ["2024-02-07,1,c1,i1,1,100,X", "2024-02-07,1,c1,i1,1,100,Y"]
    assert len({order.order_id for order in read_orders(file(*lines, header=header))[0]}) == 1


# --- slots ----------------------------------------------------------------------------------------


def test_an_increment_supersedes_the_reports_lines_of_its_day() -> None:
    whole = report(line("a", at="2024-02-07"), line("b", at="2024-02-08"))
    day = increment("2024-02-08", line("c", at="2024-02-08"))
    for deliveries in permutations([whole, day]):
        assert set(amounts(*deliveries)) == {"a", "c"}


def test_an_empty_increment_supersedes_too() -> None:
    whole = report(line("a", at="2024-02-07"), line("b", at="2024-02-08"))
    for deliveries in permutations([whole, increment("2024-02-08")]):
        assert set(amounts(*deliveries)) == {"a"}


def test_an_increment_supersedes_no_other_day_although_it_has_rows_there() -> None:
    whole = report(line("a", at="2024-02-07"), line("b", at="2024-02-08"))
    day = increment("2024-02-08", line("c", at="2024-02-07"))
    assert set(amounts(whole, day)) == {"a", "c"}


def test_an_increment_supersedes_no_other_increment() -> None:
    first = increment("2024-02-07", line("a", at="2024-02-08"))
    second = increment("2024-02-08", line("b", at="2024-02-08"))
    for deliveries in permutations([first, second]):
        assert set(amounts(*deliveries)) == {"a", "b"}


def test_an_increment_beats_the_report_and_a_later_date_an_earlier_one() -> None:
    whole = report(line("a", at="2024-02-01", amount="1"))
    early = increment("2024-02-05", line("a", at="2024-02-03", amount="2"))
    late = increment("2024-02-06", line("a", at="2024-02-02", amount="3"))
    for deliveries in permutations([whole, early, late]):
        found = tables(deliveries).f_sales
        assert [(row.ds, row.payment_amount) for row in found] == [
            (date(2024, 2, 2), Decimal("3.00"))
        ]
    assert amounts(whole, early) == {"a": Decimal("2.00")}


def test_a_slot_is_replaced_whole() -> None:
    first = increment("2024-02-07", line("a", amount="1"), line("b"), line("c", at="2024-02-01"))
    second = increment("2024-02-07", line("a", amount="2"))
    assert amounts(first, second) == {"a": Decimal("2.00")}
    assert set(amounts(second, first)) == {"a", "b", "c"}
    assert amounts(first, increment("2024-02-07")) == {}


def test_a_newer_report_replaces_the_report_and_no_increment() -> None:
    old = report(line("a", at="2024-02-01"), line("b", at="2024-02-07"))
    day = increment("2024-02-07", line("c", at="2024-02-07"))
    new = report(line("d", at="2024-02-01"), line("e", at="2024-02-07"))
    assert set(amounts(old, day, new)) == {"c", "d"}


def test_when_a_correction_drops_a_copy_the_next_best_holds_again() -> None:
    whole = report(line("a", at="2024-02-01", amount="1"))
    day = increment("2024-02-07", line("a", at="2024-02-07", amount="2"))
    assert amounts(whole, day) == {"a": Decimal("2.00")}
    assert amounts(whole, day, increment("2024-02-07")) == {"a": Decimal("1.00")}


def test_quarantined_lines_are_those_of_the_slots_in_force() -> None:
    first = increment("2024-02-07", line("a", amount="-1"))
    second = increment("2024-02-07", line("a"), line("b", quantity="x"))
    assert tables([first, second]).quarantined == [
        Quarantined(INCREMENT, date(2024, 2, 7), "user_order_log", 2)
    ]


def test_the_days_of_all_copies_of_what_a_delivery_touches_change() -> None:
    old = [
        report(line("a", at="2024-02-01"), line("b", at="2024-02-07"), line("z", at="2024-02-20")),
        increment("2024-02-07", line("c", at="2024-02-03"), line("d", at="2024-02-07")),
    ]
    # a moves from the 1st to the 6th, where nothing else is
    moved = increment("2024-02-06", line("a", at="2024-02-06"))
    assert changed_days(old, moved) == {date(2024, 2, 1), date(2024, 2, 6)}
    # c and d go, and the report's b, superseded, is of the same day
    assert changed_days(old, increment("2024-02-07")) == {date(2024, 2, 3), date(2024, 2, 7)}
    # an empty increment of the 20th supersedes z, of the 21st nothing
    assert changed_days(old, increment("2024-02-20")) == {date(2024, 2, 20)}
    assert changed_days(old, increment("2024-02-21")) == {date(2024, 2, 21)}
    # another report: all of the old one's days and its own
    assert changed_days(old, report(line("c", at="2024-02-09"))) == {
        date(2024, 2, day) for day in (1, 3, 7, 9, 20)
    }


# --- dimensions -----------------------------------------------------------------------------------

NAMES = "uniq_id,status,first_name,last_name,item_name,city_name," + NEEDED


def named(*lines: str) -> Tables:
    return tables([Delivery(REPORT, None, {"user_order_log": file(*lines, header=NAMES)})])


def test_mistake_o09_the_newest_name_wins() -> None:
    found = named(
        "b,,Anna,Petrova,Milk 1%,Rostov,2024-02-08,7,c1,i1,1,1",
        "a,,Anna,Sidorova,Milk 3%,Rostov on Don,2024-02-09,7,c1,i1,1,1",
        "c,,Anna,Ivanova,Milk 5%,Don,2024-02-07,7,c1,i1,1,1",
    )
    assert found.d_customer == [CustomerRow("c1", "Anna", "Sidorova")]
    assert found.d_item == [ItemRow("i1", "Milk 3%")]
    assert found.d_city == [CityRow("7", "Rostov on Don")]


def test_in_one_instant_the_greatest_identity_names() -> None:
    for lines in permutations(
        [
            "B,,Anna,B,,,2024-02-08,7,c1,i1,1,1",
            "a,,Anna,a,,,2024-02-08,7,c1,i1,1,1",
            "Я,,Anna,Я,,,2024-02-08,7,c2,i1,1,1",
            "z,,Anna,z,,,2024-02-08,7,c2,i1,1,1",
        ]
    ):
        assert named(*lines).d_customer == [
            CustomerRow("c1", "Anna", "a"),
            CustomerRow("c2", "Anna", "Я"),
        ]


def test_a_refund_names_too_and_an_empty_name_is_a_name() -> None:
    found = named(
        "a,,Anna,Petrova,Milk,Rostov,2024-02-08,7,c1,i1,1,1",
        "b,refunded,,Orlova,,,2024-02-09,7,c1,i1,1,1",
    )
    assert found.d_customer == [CustomerRow("c1", None, "Orlova")]
    assert found.d_item == [ItemRow("i1", None)]


def test_a_copy_that_does_not_hold_names_nothing() -> None:
    found = named(
        "a,,Old,Old,Old,Old,2024-02-09,9,c9,i9,1,1",
        "a,,Anna,Petrova,Milk,Rostov,2024-02-08,7,c1,i1,1,1",
    )
    assert found.d_customer == [CustomerRow("c1", "Anna", "Petrova")]
    assert [row.item_id for row in found.d_item] == ["i1"]
    assert [row.city_id for row in found.d_city] == ["7"]


def test_null_keys_have_no_row_in_a_dimension_and_stay_in_the_facts() -> None:
    found = computed(line(customer="", item="", city=""))
    assert (found.d_customer, found.d_item, found.d_city) == ([], [], [])
    assert found.f_sales == [
        SaleRow(
            ds=date(2024, 2, 7),
            order_id="a",
            customer_id=None,
            item_id=None,
            city_id=None,
            status="shipped",
            quantity=Decimal("1.000"),
            payment_amount=Decimal("100.00"),
        )
    ]


def test_mistake_o07_o08_the_calendar_has_a_row_a_day_and_iso_weeks() -> None:
    rows = {row.ds: row for row in calendar()}
    assert (min(rows), max(rows), len(rows)) == (date(2010, 1, 1), date(2035, 12, 31), 9496)
    first = rows[date(2010, 1, 1)]  # a Friday: it is of the last week of 2009
    assert (first.iso_year, first.iso_week) == (2009, 53)
    assert (first.week_start, first.month_start) == (date(2009, 12, 28), date(2010, 1, 1))
    monday = rows[date(2024, 12, 30)]
    assert (monday.iso_year, monday.iso_week) == (2025, 1)
    assert (monday.week_start, monday.month_start) == (date(2024, 12, 30), date(2024, 12, 1))
    assert rows[date(2025, 1, 5)].week_start == date(2024, 12, 30)
    assert rows[date(2025, 1, 6)].week_start == date(2025, 1, 6)


# --- retention ------------------------------------------------------------------------------------

WEEK = date(2024, 2, 5)  # a Monday; line() is on the Wednesday


def week(*lines: str) -> tuple[object, ...]:
    found = [row for row in computed(*lines).f_customer_retention if row.period_name == "weekly"]
    assert [row.period_id for row in found] == [WEEK]
    return tuple(asdict(found[0]).values())[2:]


def by_item(*lines: str) -> list[tuple[object, ...]]:
    found = computed(*lines).f_customer_retention_by_item
    return [tuple(asdict(row).values())[2:] for row in found if row.period_name == "weekly"]


def test_one_shipped_row_is_new_more_are_returning() -> None:
    assert week(
        line("a", customer="one", amount="10"),
        line("b", customer="two", amount="20"),
        line("c", customer="two", amount="30.50"),
        line("d", customer="three", amount="1"),
        line("e", customer="three", amount="1"),
        line("f", customer="three", amount="1"),
    ) == (1, Decimal("10.00"), 2, Decimal("53.50"), 0, 0)


def test_mistake_o02_a_refund_is_no_order() -> None:
    # one shipped row and one refund: still new; net 100 - 30
    assert week(
        line("a", amount="100"),
        line("b", amount="30", status="refunded"),
    ) == (1, Decimal("70.00"), 0, Decimal("0"), 1, 1)


def test_mistake_o02_a_refund_only_customer_is_in_neither() -> None:
    assert week(
        line("a", amount="30", status="refunded"),
        line("b", amount="20", status="refunded"),
        line("c", customer="c2", amount="5"),
    ) == (1, Decimal("5.00"), 0, Decimal("0"), 1, 2)


def test_mistake_o06_refunds_of_the_same_day_are_counted_and_not_netted_away() -> None:
    # order, refund of it, order again, all in one day: two shipped rows, one refund
    assert week(
        line("a", amount="100"),
        line("b", amount="100", status="refunded"),
        line("c", amount="100"),
    ) == (0, Decimal("0"), 1, Decimal("100.00"), 1, 1)


def test_mistake_o17_customers_are_distinct_and_refund_rows_are_not() -> None:
    assert week(
        line("a", customer="c1", status="refunded"),
        line("b", customer="c1", status="refunded"),
        line("c", customer="c2", status="refunded"),
    ) == (0, Decimal("0"), 0, Decimal("0"), 2, 3)


def test_mistake_o14_sums_over_nothing_are_zero() -> None:
    assert week(line("a", status="refunded")) == (0, Decimal("0"), 0, Decimal("0"), 1, 1)
    assert week(line("a", customer="")) == (0, Decimal("0"), 0, Decimal("0"), 0, 0)


def test_rows_without_a_customer_are_in_no_measure_and_keep_their_period() -> None:
    assert week(
        line("a", amount="10"),
        line("b", customer="", amount="20"),
        line("c", customer="", amount="30", status="refunded"),
    ) == (1, Decimal("10.00"), 0, Decimal("0"), 0, 0)


def test_mistake_o18_revenue_is_the_amount_with_its_cents_and_never_times_the_quantity() -> None:
    assert week(line("a", quantity="7", amount="10.99")) == (
        1,
        Decimal("10.99"),
        0,
        Decimal("0"),
        0,
        0,
    )


def test_a_row_of_amount_zero_is_a_row() -> None:
    assert week(line("a", amount="0", quantity="0")) == (1, Decimal("0.00"), 0, Decimal("0"), 0, 0)


def test_net_revenue_may_be_negative() -> None:
    assert week(line("a", amount="10"), line("b", amount="30", status="refunded"))[1] == Decimal(
        "-20.00"
    )


def test_mistake_o08_a_week_over_the_new_year_is_one_week_and_two_months() -> None:
    found = computed(
        line("a", at="2024-12-31", amount="1"),
        line("b", at="2025-01-01", amount="2"),
        line("c", at="2025-12-29", amount="4"),
    ).f_customer_retention
    assert [
        (
            row.period_name,
            row.period_id,
            row.new_customers_revenue,
            row.returning_customers_revenue,
        )
        for row in found
    ] == [
        ("monthly", date(2024, 12, 1), Decimal("1.00"), Decimal("0")),
        ("monthly", date(2025, 1, 1), Decimal("2.00"), Decimal("0")),
        ("monthly", date(2025, 12, 1), Decimal("4.00"), Decimal("0")),
        ("weekly", date(2024, 12, 30), Decimal("0"), Decimal("3.00")),
        ("weekly", date(2025, 12, 29), Decimal("4.00"), Decimal("0")),
    ]


def test_mistake_o03_the_week_is_cut_in_the_business_zone() -> None:
    # Sunday 23:30 and Monday 00:30 in Moscow are both Sunday in UTC
    found = computed(line("a", at="2024-02-11T23:30:00"), line("b", at="2024-02-12T00:30:00"))
    weeks = [row.period_id for row in found.f_customer_retention if row.period_name == "weekly"]
    assert weeks == [date(2024, 2, 5), date(2024, 2, 12)]


def test_a_refund_of_a_later_week_is_of_that_week() -> None:
    found = computed(
        line("a", at="2024-02-07", amount="100"),
        line("b", at="2024-02-14", amount="100", status="refunded"),
    ).f_customer_retention
    assert [tuple(asdict(row).values()) for row in found] == [
        ("monthly", date(2024, 2, 1), 1, Decimal("0.00"), 0, Decimal("0"), 1, 1),
        ("weekly", date(2024, 2, 5), 1, Decimal("100.00"), 0, Decimal("0"), 0, 0),
        ("weekly", date(2024, 2, 12), 0, Decimal("0"), 0, Decimal("0"), 1, 1),
    ]


def test_a_period_without_sales_has_no_row() -> None:
    assert computed().f_customer_retention == []
    found = computed(line("a", at="2024-02-07"), line("b", at="2024-02-21")).f_customer_retention
    assert [row.period_id for row in found if row.period_name == "weekly"] == [
        date(2024, 2, 5),
        date(2024, 2, 19),
    ]


def test_mistake_o05_by_item_counts_the_rows_of_the_item_alone() -> None:
    # returning over all items, new in each
    lines = [
        line("a", item="i1", amount="10"),
        line("b", item="i2", amount="20"),
        line("c", item="i2", amount="5", status="refunded"),
        line("d", item="i3", amount="1", status="refunded"),
    ]
    assert week(*lines) == (0, Decimal("0"), 1, Decimal("24.00"), 1, 2)
    assert by_item(*lines) == [
        ("i1", 1, Decimal("10.00"), 0, Decimal("0"), 0, 0),
        ("i2", 1, Decimal("15.00"), 0, Decimal("0"), 1, 1),
        ("i3", 0, Decimal("0"), 0, Decimal("0"), 1, 1),
    ]


def test_by_item_without_a_customer_keeps_the_row_and_without_an_item_has_none() -> None:
    assert by_item(line("a", customer=""), line("b", item="")) == [
        ("i1", 0, Decimal("0"), 0, Decimal("0"), 0, 0)
    ]


# --- the real month -------------------------------------------------------------------------------

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real files in {REAL}")


def real(kind: str = REPORT) -> Delivery:
    suffix, day = ("", None) if kind == REPORT else ("_inc", date(2024, 2, 25))
    paths = sorted(
        REAL.glob("*_inc.csv") if suffix else set(REAL.glob("*.csv")) - set(REAL.glob("*_inc.csv"))
    )
    return Delivery(kind, day, {path.name: path.read_bytes() for path in paths})


def plain(path: Path) -> dict[str, dict[str, str]]:
    """The last line of each uniq_id, by csv alone."""
    with path.open(encoding="utf-8", newline="") as lines:
        return {row["uniq_id"]: row for row in csv.DictReader(lines)}


@pytest.fixture(scope="module")
def month() -> Tables:
    return tables([real()])


@needs_real
def test_the_real_month_has_its_ids_and_nothing_in_quarantine(month: Tables) -> None:
    orders, quarantined = read_orders((REAL / "user_order_log.csv").read_bytes())
    assert (len(orders), quarantined) == (22_525, [])
    assert len(month.f_sales) == 5_119
    assert month.quarantined == []
    assert len(tables([real(), real(INCREMENT)]).f_sales) == 5_119 + 160


@needs_real
def test_the_real_month_without_uniq_id_has_the_same_identities() -> None:
    for name, ids in (("user_order_log.csv", 5_119), ("user_order_log_inc.csv", 160)):
        data = (REAL / name).read_bytes()
        hidden = data.replace(b"id,uniq_id,", b"id,hidden,", 1)
        pairs = {
            (one.order_id, other.order_id)
            for one, other in zip(read_orders(data)[0], read_orders(hidden)[0], strict=True)
        }
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == ids


@needs_real
def test_the_real_totals_are_those_of_a_few_plain_lines(month: Tables) -> None:
    rows = plain(REAL / "user_order_log.csv").values()
    assert sum(int(row["payment_amount"]) for row in rows) == 2_643_175
    assert sum(row.payment_amount for row in month.f_sales) == Decimal(2_643_175)
    assert sum(row.quantity for row in month.f_sales) == sum(int(row["quantity"]) for row in rows)
    both = tables([real(), real(INCREMENT)])
    assert sum(row.payment_amount for row in both.f_sales) == Decimal(2_643_175 + 77_500)


@needs_real
def test_the_real_weeks_are_those_of_a_few_plain_lines(month: Tables) -> None:
    spent: defaultdict[date, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in plain(REAL / "user_order_log.csv").values():
        ds = date.fromisoformat(row["date_time"][:10])
        spent[ds - timedelta(ds.weekday())][row["customer_id"]].append(int(row["payment_amount"]))
    expected = {
        monday: (
            sum(len(amounts) == 1 for amounts in customers.values()),
            sum(sum(amounts) for amounts in customers.values() if len(amounts) == 1),
            sum(len(amounts) > 1 for amounts in customers.values()),
            sum(sum(amounts) for amounts in customers.values() if len(amounts) > 1),
        )
        for monday, customers in spent.items()
    }
    assert expected[date(2024, 2, 5)] == (742, 378_215, 436, 541_275)
    weekly = [row for row in month.f_customer_retention if row.period_name == "weekly"]
    assert {
        row.period_id: (
            row.new_customers_count,
            int(row.new_customers_revenue),
            row.returning_customers_count,
            int(row.returning_customers_revenue),
        )
        for row in weekly
    } == expected


@needs_real
def test_mistake_o01_the_fan_out_would_give_hundreds_of_times_the_revenue(month: Tables) -> None:
    # The old view joined the new and the returning customers of a week on the week alone, so that
    # each row of the one was repeated for each row of the other.
    weekly = [row for row in month.f_customer_retention if row.period_name == "weekly"]
    true = sum(row.new_customers_revenue + row.returning_customers_revenue for row in weekly)
    assert true == Decimal(2_643_175)
    fanned = sum(
        row.new_customers_revenue * row.returning_customers_count
        + row.returning_customers_revenue * row.new_customers_count
        for row in weekly
    )
    assert true * 500 < fanned < true * 530


# --- comparison -----------------------------------------------------------------------------------

SALE = SaleRow(
    date(2024, 2, 7), "a", "c1", None, "1", "shipped", Decimal("1.000"), Decimal("100.00")
)


def test_equal_rows_have_no_differences() -> None:
    other = replace(SALE, order_id="b")
    assert differences([SALE, other], [asdict(other) | {"loaded_at": 1}, asdict(SALE)]) == []
    assert differences([], []) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ds", date(2024, 2, 8)),
        ("ds", datetime(2024, 2, 7)),  # noqa: DTZ001 - a wrong type on purpose
        ("customer_id", None),
        ("customer_id", "C1"),
        ("item_id", ""),
        ("city_id", 1),
        ("payment_amount", Decimal("100.01")),
        ("payment_amount", 100.0),
        ("payment_amount", 100),
        ("quantity", None),
    ],
)
def test_each_cell_is_compared_with_its_type(column: str, value: object) -> None:
    found = differences([SALE], [asdict(SALE) | {column: value}])
    assert len(found) == 1
    assert f"a: {column} is {value!r}" in found[0]


def test_counts_are_integers() -> None:
    row = RetentionRow("weekly", WEEK, 1, Decimal(0), 0, Decimal(0), 0, 0)
    assert differences([row], [asdict(row)]) == []
    assert len(differences([row], [asdict(row) | {"new_customers_count": Decimal(1)}])) == 1
    assert len(differences([row], [asdict(row) | {"customers_refunded": False}])) == 1


def test_rows_missing_extra_and_twice_are_differences() -> None:
    other = replace(SALE, order_id="b")
    assert "a: row is missing" in differences([SALE], [])[0]
    assert "row is extra" in differences([], [asdict(SALE)])[0]
    assert "b: row is extra" in differences([SALE], [asdict(SALE), asdict(other)])[0]
    assert differences([SALE], [asdict(SALE)] * 2) == ["a: duplicate key, 2 rows"]
    item = ItemRetentionRow("weekly", WEEK, "i1", 1, Decimal(0), 0, Decimal(0), 0, 0)
    assert "weekly 2024-02-05 i1: row is missing" in differences([item], [])[0]


def test_a_missing_column_is_a_difference() -> None:
    without = asdict(SALE)
    del without["city_id"]
    assert differences([SALE], [without]) == ["column 'city_id' is missing in 1 of 1 actual rows"]
    assert differences([SALE], [{}])[-1].startswith("column")


def test_many_differences_are_cut() -> None:
    rows = [replace(SALE, order_id=str(n)) for n in range(30)]
    found = differences(rows, [], limit=5)
    assert len(found) == 6
    assert found[-1] == "... and 25 more"
