"""Real order lines as deliveries of the order source: fifty days of a British gift shop.

UCI "Online Retail" (CC BY 4.0), one file a day: InvoiceNo, StockCode, Description, Quantity,
InvoiceDate, UnitPrice, CustomerID, Country. And the real month of the order source itself, a report
and an increment. Neither is part of the repository: both are in a folder beside it, or not there.

Data flow: <folder>/retail/YYYY-MM-DD.csv -> user_order_log; <folder>/orders/*.csv -> as they are
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from itertools import product
from pathlib import Path

from sandbox.delivery import FILES, Delivery, increment, report

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
COLUMNS = (
    "id",
    "uniq_id",
    "date_time",
    "city_id",
    "city_name",
    "customer_id",
    "item_id",
    "item_name",
    "quantity",
    "payment_amount",
    "status",
)
MONTH_START, MONTH_END, MONTH_INCREMENT = date(2024, 2, 2), date(2024, 2, 24), date(2024, 2, 25)
_WHERE = "put the folders `retail` and `orders` of the project's shared data there"
# The other files of a delivery: headers alone, and a price list without lines.
_OTHERS = {
    "customer_research": b"date_id,category_id,geo_id,sales_qty,sales_amt\n",
    "user_activity_log": b"id,uniq_id,date_time,action_id,customer_id,quantity\n",
    "price_log": b"",
}


class DataMissingError(Exception):
    """The real data is not there; the message says where it belongs."""


@dataclass(frozen=True, slots=True)
class _Sale:
    """A line of the shop: `source` is all of it as it stands in the file."""

    source: str
    day: date
    clock: str
    cells: tuple[str, ...]  # those of COLUMNS behind date_time


def is_there() -> bool:
    """Whether the real data is where it belongs."""
    return bool(list((FOLDER / "retail").glob("*.csv"))) and (FOLDER / "orders").is_dir()


def days() -> list[date]:
    """The days of the shop, in order. Raises DataMissingError when they are not there."""
    found = sorted((FOLDER / "retail").glob("????-??-??.csv"))
    if not found:
        raise DataMissingError(f"no retail days in {FOLDER / 'retail'}: {_WHERE}")
    return [date.fromisoformat(path.stem) for path in found]


def retail_increment(day: date) -> Delivery:
    """A real day as an increment."""
    return increment(day, {**_OTHERS, "user_order_log": order_log(_sales(day))}, "retail")


def retail_report(start: date, end: date) -> Delivery:
    """The real days of [start, end) as a report."""
    found = [day for day in days() if start <= day < end]
    sales = [sale for day in found for sale in _sales(day)]
    files = {**_OTHERS, "user_order_log": order_log(sales)}
    return report(start, end - timedelta(days=1), files, "retail")


def retail_lines(count: int, spans: int | None = None) -> Delivery:
    """A report of `count` order lines: all real days over and over, each time later and with new ids.

    A repetition is moved by ten weeks, so that weekdays stay: 5 M lines end in 2022. With `spans`,
    repetitions begin again after so many, and days have more lines instead. The lines are in the order
    of their days, as those of the source's own report are.
    """
    sales = [sale for day in days() for sale in _sales(day)]
    span = timedelta(weeks=(days()[-1] - days()[0]).days // 7 + 1)
    repeats = -(-count // len(sales))
    spans = min(spans or repeats, repeats)
    last_ones = sales[: count - (repeats - 1) * len(sales)]
    buffer = io.BytesIO()
    buffer.write(_header())
    written = 0
    for place, day in product(range(spans), days()):
        for number in range(place, repeats, spans):
            few = [s for s in last_ones if s.day == day] if number == repeats - 1 else _sales(day)
            _write(buffer, few, written, place * span, str(number) if number else "")
            written += len(few)
    last = days()[-1] + (spans - 1) * span
    files = {**_OTHERS, "user_order_log": buffer.getvalue()}
    return report(days()[0], last, files, "retail", count, spans)


def real_month() -> tuple[Delivery, Delivery]:
    """The order source's real report of a month and the increment of the day after.

    Raises DataMissingError when they are not there.
    """
    folder = FOLDER / "orders"
    if not (folder / "user_order_log.csv").exists():
        raise DataMissingError(f"no real month in {folder}: {_WHERE}")
    whole = {name: (folder / f"{name}.csv").read_bytes() for name in FILES}
    more = {name: (folder / f"{name}_inc.csv").read_bytes() for name in FILES}
    return report(MONTH_START, MONTH_END, whole, "real"), increment(MONTH_INCREMENT, more, "real")


def order_log(sales: Sequence[_Sale]) -> bytes:
    """The file of these lines."""
    buffer = io.BytesIO()
    buffer.write(_header())
    _write(buffer, sales, 0, timedelta(), "")
    return buffer.getvalue()


def _header() -> bytes:
    return ",".join(COLUMNS).encode() + b"\n"


def _write(
    buffer: io.BytesIO, sales: Sequence[_Sale], before: int, later: timedelta, salt: str
) -> None:
    text = io.TextIOWrapper(buffer, encoding="utf-8", newline="", write_through=True)
    csv.writer(text, lineterminator="\n").writerows(_rows(sales, before, later, salt))
    text.detach()


def _rows(
    sales: Sequence[_Sale], before: int, later: timedelta, salt: str
) -> Iterator[tuple[object, ...]]:
    """Records of the lines, numbered on from `before`, so much later, with ids of their own by `salt`."""
    moved = {day: str(day + later) for day in {sale.day for sale in sales}}
    for number, sale in enumerate(sales, before + 1):
        identity = hashlib.md5((sale.source + salt).encode(), usedforsecurity=False).hexdigest()
        yield (number, identity, f"{moved[sale.day]}T{sale.clock}", *sale.cells)


@cache
def _sales(day: date) -> tuple[_Sale, ...]:
    """The lines of a day's file, in its order."""
    path = FOLDER / "retail" / f"{day}.csv"
    if not path.exists():
        raise DataMissingError(f"no {path}: {_WHERE}")
    text = path.read_text(encoding="utf-8")
    # No cell of the real files holds a newline: a line is a record.
    sources = text.splitlines()[1:]
    return tuple(
        _sale(source, record)
        for source, record in zip(sources, csv.DictReader(io.StringIO(text)), strict=True)
    )


def _sale(source: str, record: dict[str, str]) -> _Sale:
    day, _, clock = record["InvoiceDate"].partition(" ")
    quantity = abs(Decimal(record["Quantity"]))
    cells = (
        record["Country"],
        record["Country"],
        record["CustomerID"].removesuffix(".0"),
        record["StockCode"],
        record["Description"],
        str(quantity),
        str(abs(Decimal(record["UnitPrice"])) * quantity),
        "refunded" if record["InvoiceNo"].startswith("C") else "shipped",
    )
    return _Sale(source, date.fromisoformat(day), clock, cells)
