"""What SPEC section 2 (orders) says the tables must hold.

An independent source of truth: the standard library only, written from SPEC and from no model or
loader. It starts from the bytes of the delivered files, in the order in which they were landed, and
computes the dimensions, ``f_sales``, both retention marts and the lines that are quarantined.

Text is compared as Python ``str``: the order of code points is the order of UTF-8 bytes (SPEC 0).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DecimalException
from functools import cache, lru_cache
from typing import TypeVar
from zoneinfo import ZoneInfo

MOSCOW = ZoneInfo("Europe/Moscow")
REPORT, INCREMENT = "report", "increment"
SHIPPED, REFUNDED = "shipped", "refunded"

ORDERS, RESEARCH, ACTIVITY, PRICES = (
    "user_order_log",
    "customer_research",
    "user_activity_log",
    "price_log",
)
_SPELLINGS = {"user_orders_log": ORDERS, "custom_research": RESEARCH}
_ORDER_COLUMNS = (
    "date_time",
    "city_id",
    "city_name",
    "customer_id",
    "first_name",
    "last_name",
    "item_id",
    "item_name",
    "quantity",
    "payment_amount",
    "status",
)
_NEEDED = {
    ORDERS: ("date_time", "city_id", "customer_id", "item_id", "quantity", "payment_amount"),
    RESEARCH: ("date_id",),
    ACTIVITY: ("date_time",),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)


class RefusedFileError(ValueError):
    """A file that refuses its whole delivery: everything stays as it was (SPEC 2)."""


class _UnusableError(ValueError):
    """A line that belongs to the quarantine, with the reason (SPEC 0, Quarantine)."""


@dataclass(frozen=True)
class Delivery:
    """A report (``slot_date`` is None) or the increment of a date, with its files by name.

    Names as they come: with or without ``_inc`` and ``.csv``, in the spellings that SPEC 2 lists.
    """

    kind: str
    slot_date: date | None
    files: Mapping[str, bytes]

    @property
    def slot(self) -> tuple[str, date | None]:
        """What it replaces."""
        return self.kind, self.slot_date


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A line that can't be used; ``line_no`` counts records, 1 is the first after the header."""

    kind: str
    slot_date: date | None
    file: str
    line_no: int


@dataclass(frozen=True, slots=True)
class Order:
    """One usable line of ``user_order_log``, typed; ``date_time`` is aware UTC."""

    line_no: int
    order_id: str
    uniq_id: str | None
    ds: date
    date_time: datetime
    city_id: str | None
    city_name: str | None
    customer_id: str | None
    first_name: str | None
    last_name: str | None
    item_id: str | None
    item_name: str | None
    quantity: Decimal
    payment_amount: Decimal
    status: str


@dataclass(frozen=True, slots=True)
class RawOrder:
    """One row of ``raw.user_order_log``: an order in its slot."""

    slot_kind: str
    slot_date: date | None
    line_no: int
    order_id: str
    uniq_id: str | None
    ds: date
    date_time: datetime
    city_id: str | None
    city_name: str | None
    customer_id: str | None
    first_name: str | None
    last_name: str | None
    item_id: str | None
    item_name: str | None
    quantity: Decimal
    payment_amount: Decimal
    status: str


@dataclass(frozen=True, slots=True)
class RawCopy:
    """One row of ``raw.order_copies``: where an identity occurs."""

    order_id: str
    ds: date
    slot_kind: str
    slot_date: date | None
    last_line_no: int


@dataclass(frozen=True, slots=True)
class RawResearch:
    """One row of ``raw.customer_research``."""

    slot_kind: str
    slot_date: date | None
    line_no: int
    ds: date
    category_id: str | None
    geo_id: str | None
    sales_qty: Decimal | None
    sales_amt: Decimal | None


@dataclass(frozen=True, slots=True)
class RawActivity:
    """One row of ``raw.user_activity_log``."""

    slot_kind: str
    slot_date: date | None
    line_no: int
    ds: date
    uniq_id: str | None
    date_time: datetime
    action_id: str | None
    customer_id: str | None
    quantity: Decimal | None


@dataclass(frozen=True, slots=True)
class RawPrice:
    """One row of ``raw.price_log``."""

    slot_kind: str
    slot_date: date | None
    line_no: int
    item_name: str | None
    price: Decimal | None


@dataclass(frozen=True)
class Raw:
    """What the raw tables hold of the slots in force."""

    user_order_log: list[RawOrder]
    order_copies: list[RawCopy]
    customer_research: list[RawResearch]
    user_activity_log: list[RawActivity]
    price_log: list[RawPrice]


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """One row of ``d_customer``."""

    customer_id: str
    first_name: str | None
    last_name: str | None


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One row of ``d_item``."""

    item_id: str
    item_name: str | None


@dataclass(frozen=True, slots=True)
class CityRow:
    """One row of ``d_city``."""

    city_id: str
    city_name: str | None


@dataclass(frozen=True, slots=True)
class CalendarRow:
    """One row of ``d_calendar``."""

    ds: date
    iso_year: int
    iso_week: int
    week_start: date
    month_start: date


@dataclass(frozen=True, slots=True)
class SaleRow:
    """One row of ``f_sales``; a refund is negative in both measures."""

    ds: date
    order_id: str
    customer_id: str | None
    item_id: str | None
    city_id: str | None
    status: str
    quantity: Decimal
    payment_amount: Decimal


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """One row of ``f_customer_retention``."""

    period_name: str
    period_id: date
    new_customers_count: int
    new_customers_revenue: Decimal
    returning_customers_count: int
    returning_customers_revenue: Decimal
    refunded_customer_count: int
    customers_refunded: int


@dataclass(frozen=True, slots=True)
class ItemRetentionRow:
    """One row of ``f_customer_retention_by_item``."""

    period_name: str
    period_id: date
    item_id: str
    new_customers_count: int
    new_customers_revenue: Decimal
    returning_customers_count: int
    returning_customers_revenue: Decimal
    refunded_customer_count: int
    customers_refunded: int


@dataclass(frozen=True)
class Tables:
    """All that the deliveries must give, each table sorted by its key."""

    d_customer: list[CustomerRow]
    d_item: list[ItemRow]
    d_city: list[CityRow]
    f_sales: list[SaleRow]
    f_customer_retention: list[RetentionRow]
    f_customer_retention_by_item: list[ItemRetentionRow]
    quarantined: list[Quarantined]


# --- records --------------------------------------------------------------------------------------


def _records(text: str) -> Iterator[tuple[str, bool]]:
    """The records of a CSV text and whether a newline ends each; within quotes it is text.

    Raises RefusedFileError at the end of the text when a quote is still open.
    """
    *lines, rest = text.split("\n")
    pending: list[str] = []
    is_open = False
    for line in lines:
        pending.append(line)
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            yield "\n".join(pending).removesuffix("\r"), True
            pending = []
    if is_open ^ (rest.count('"') % 2 == 1):
        raise RefusedFileError("a quote is open at the end of the file")
    if rest or pending:
        yield "\n".join([*pending, rest]).removesuffix("\r"), False


_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def _cells(record: str) -> list[str]:
    """The cells of a record; _UnusableError where a quote is neither around a cell nor doubled."""
    if '"' not in record:
        return record.split(",")
    cells, at = [], 0
    while True:
        if quoted := _QUOTED.match(record, at):
            cells.append(quoted[1].replace('""', '"'))
            at = quoted.end()
        else:
            end = record.find(",", at)
            end = len(record) if end < 0 else end
            cells.append(record[at:end])
            at = end
            if '"' in cells[-1]:
                raise _UnusableError("a quote within a cell")
        if at == len(record):
            return cells
        if record[at] != ",":
            raise _UnusableError("text after a quoted cell")
        at += 1


def _columns(file: str, records: Iterator[tuple[str, bool]]) -> list[str]:
    """The columns of a file by its header; ``price_log`` has none (SPEC 2)."""
    if file == PRICES:
        return ["item_name", "price"]
    try:
        columns = _cells(next(records)[0])
    except StopIteration:
        raise RefusedFileError(f"{file}: no header") from None
    except _UnusableError as error:
        raise RefusedFileError(f"{file}: {error} in the header") from error
    for column in _NEEDED[file]:
        if column not in columns:
            raise RefusedFileError(f"{file}: no column {column}")
    for column in {*_ORDER_COLUMNS, *_NEEDED[file], "uniq_id"}:
        if columns.count(column) > 1:
            raise RefusedFileError(f"{file}: {column} twice, which one holds?")
    return columns


Line = Mapping[str, str | None]


def _lines(file: str, data: bytes) -> Iterator[tuple[int, Line | None]]:
    """Each record's number and cells by column, an empty cell as None; None if it can't be read."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    records = _records(text)
    columns = _columns(file, records)
    for line_no, (record, is_terminated) in enumerate(records, 1):
        try:
            cells = _cells(record)
        except _UnusableError:
            yield line_no, None
            continue
        if len(cells) < len(columns) and not is_terminated:
            raise RefusedFileError(f"{file}: the last line is cut: {record!r}")
        if len(cells) != len(columns) or re.search("[\0\ud800-\udfff]", record):
            yield line_no, None
        else:
            yield line_no, dict(zip(columns, (cell or None for cell in cells), strict=True))


# --- values ---------------------------------------------------------------------------------------


def _number(text: str | None) -> Decimal | None:
    """A finite decimal, exactly as written; an empty cell is None."""
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip(" ")):
        raise _UnusableError(f"not a number: {text!r}")
    try:
        return _EXACT.create_decimal(text.strip(" "))
    except DecimalException as error:
        raise _UnusableError(f"not a number: {text!r}") from error


def _stored(number: Decimal | None, scale: int) -> Decimal | None:
    """The number rounded half away from zero, as numeric(18, scale) stores it."""
    if number is None:
        return None
    limit = Decimal(1).scaleb(18 - scale)
    if abs(number) >= limit:  # before quantize, which would need all the digits of 1e999
        raise _UnusableError(f"too great: {number}")
    rounded = number.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    if abs(rounded) >= limit:
        raise _UnusableError(f"too great: {number}")
    return rounded if rounded else rounded.copy_abs()


def _measure(text: str | None, scale: int) -> Decimal:
    """A quantity or an amount of an order: there, and not negative (SPEC 2)."""
    number = _number(text)
    if number is None or number < 0:
        raise _UnusableError(f"empty or negative: {text!r}")
    stored = _stored(number, scale)
    assert stored is not None
    return stored


@cache
def _instant(text: str | None, zone: ZoneInfo) -> datetime:
    """An instant in UTC; a naive one is of the business zone, one with an offset is converted."""
    if text is None or not _INSTANT.fullmatch(text):
        raise _UnusableError(f"not an instant: {text!r}")
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=zone)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _UnusableError(f"not an instant: {text!r}") from error


def identity_hash(values: Iterable[str | None]) -> str:
    """The md5 of an order without ``uniq_id``: U+001F between the values, U+001E for null."""
    text = "\x1f".join("\x1e" if value is None else value for value in values)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


# --- lines ----------------------------------------------------------------------------------------


def _order(line_no: int, line: Line, zone: ZoneInfo) -> Order:
    """One line of ``user_order_log`` typed, or _UnusableError."""
    instant = _instant(line["date_time"], zone)
    quantity = _measure(line["quantity"], 3)
    amount = _measure(line["payment_amount"], 2)
    status = line.get("status") or SHIPPED
    if status not in (SHIPPED, REFUNDED):
        raise _UnusableError(f"status {status!r}")
    texts = {column: line.get(column) for column in _ORDER_COLUMNS[1:8]}
    uniq_id = line.get("uniq_id")
    at = instant.strftime("%Y-%m-%d %H:%M:%S.%f").zfill(26)  # the year with four digits
    return Order(
        line_no=line_no,
        order_id=uniq_id
        or identity_hash([at, *texts.values(), f"{quantity:.3f}", f"{amount:.2f}", status]),
        uniq_id=uniq_id,
        ds=instant.astimezone(zone).date(),
        date_time=instant,
        **texts,
        quantity=quantity,
        payment_amount=amount,
        status=status,
    )


Slot = tuple[str, date | None]


def _research(slot: Slot, line_no: int, line: Line, zone: ZoneInfo) -> RawResearch:
    """One line of ``customer_research`` typed, or _UnusableError."""
    return RawResearch(
        *slot,
        line_no,
        _instant(line["date_id"], zone).astimezone(zone).date(),
        line.get("category_id"),
        line.get("geo_id"),
        _stored(_number(line.get("sales_qty")), 3),
        _stored(_number(line.get("sales_amt")), 2),
    )


def _activity(slot: Slot, line_no: int, line: Line, zone: ZoneInfo) -> RawActivity:
    """One line of ``user_activity_log`` typed, or _UnusableError."""
    instant = _instant(line["date_time"], zone)
    return RawActivity(
        *slot,
        line_no,
        instant.astimezone(zone).date(),
        line.get("uniq_id"),
        instant,
        line.get("action_id"),
        line.get("customer_id"),
        _stored(_number(line.get("quantity")), 3),
    )


def _price(slot: Slot, line_no: int, line: Line, _: ZoneInfo) -> RawPrice:
    """One line of ``price_log`` typed, or _UnusableError."""
    return RawPrice(*slot, line_no, line["item_name"], _stored(_number(line["price"]), 2))


T = TypeVar("T")


def _read_file(
    file: str, data: bytes, typed: Callable[[int, Line], T]
) -> tuple[list[T], list[int]]:
    """The usable lines of a file, typed, and the numbers of those in quarantine."""
    usable, quarantined = [], []
    for line_no, line in _lines(file, data):
        if line is None:
            quarantined.append(line_no)
            continue
        try:
            usable.append(typed(line_no, line))
        except _UnusableError:
            quarantined.append(line_no)
    return usable, quarantined


@lru_cache(maxsize=256)
def read_orders(data: bytes, zone: ZoneInfo = MOSCOW) -> tuple[list[Order], list[int]]:
    """The usable lines of a ``user_order_log`` and the numbers of those in quarantine.

    Raises RefusedFileError (SPEC 2): a short unterminated last line, an open quote, no header, a
    missing needed column.
    """
    return _read_file(ORDERS, data, lambda line_no, line: _order(line_no, line, zone))


# --- slots ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slot:
    """What one slot holds now."""

    delivery: Delivery
    orders: Sequence[Order] = ()
    research: Sequence[RawResearch] = ()
    activities: Sequence[RawActivity] = ()
    prices: Sequence[RawPrice] = ()
    quarantined: Sequence[Quarantined] = ()
    has_orders: bool = False


def _name(file: str) -> str:
    """The contract's name of a delivered file, whose names drift (SPEC 2)."""
    stem = file.removesuffix(".csv").removesuffix("_inc")
    name = _SPELLINGS.get(stem, stem)
    if name not in (ORDERS, RESEARCH, ACTIVITY, PRICES):
        raise ValueError(f"no file of the contract: {file}")
    return name


def _read(delivery: Delivery, zone: ZoneInfo) -> _Slot:
    """All files of a delivery; one that is refused refuses it."""
    if (delivery.kind == INCREMENT) is not isinstance(delivery.slot_date, date):
        raise ValueError(f"an increment has a date, a report has none: {delivery.slot}")
    slot = delivery.slot
    files = {_name(file): data for file, data in delivery.files.items()}
    bad: dict[str, list[int]] = {}

    def lines(file: str, typed: Callable[[Slot, int, Line, ZoneInfo], T]) -> list[T]:
        if file not in files:
            return []
        found, bad[file] = _read_file(
            file, files[file], lambda line_no, line: typed(slot, line_no, line, zone)
        )
        return found

    orders: list[Order] = []
    if ORDERS in files:
        orders, bad[ORDERS] = read_orders(files[ORDERS], zone)
    return _Slot(
        delivery,
        orders,
        lines(RESEARCH, _research),
        lines(ACTIVITY, _activity),
        lines(PRICES, _price),
        [Quarantined(*slot, file, number) for file in bad for number in bad[file]],
        ORDERS in files,
    )


def _in_force(deliveries: Iterable[Delivery], zone: ZoneInfo) -> list[_Slot]:
    """The slots after all deliveries: each replaces all that its slot had (SPEC 2)."""
    slots: dict[tuple[str, date | None], _Slot] = {}
    for delivery in deliveries:
        slots[delivery.slot] = _read(delivery, zone)
    return list(slots.values())


def _holding(slots: Sequence[_Slot]) -> list[Order]:
    """The copy of each identity that holds, over all days and statuses (SPEC 2).

    A landed increment, even an empty one, supersedes the report's lines of its day; of the rest an
    increment beats the report, a later date an earlier one, and in a file the last line holds.
    """
    superseded = {slot.delivery.slot_date for slot in slots if slot.has_orders}
    best: dict[str, tuple[tuple[bool, date, int], Order]] = {}
    for slot in slots:
        slot_date = slot.delivery.slot_date
        for order in slot.orders:
            if slot_date is None and order.ds in superseded:
                continue
            rank = (slot_date is not None, slot_date or date.min, order.line_no)
            rival = best.get(order.order_id)
            if rival is None or rank > rival[0]:
                best[order.order_id] = rank, order
    return [best[order_id][1] for order_id in sorted(best)]


def holding_orders(deliveries: Iterable[Delivery], zone: ZoneInfo = MOSCOW) -> list[Order]:
    """The order that holds for each identity, sorted by identity."""
    return _holding(_in_force(deliveries, zone))


def changed_days(
    before: Sequence[Delivery], delivery: Delivery, zone: ZoneInfo = MOSCOW
) -> set[date]:
    """The days that landing one more delivery must mark, when its orders are read.

    The days of all copies, over all slots, before and after, of each identity that its slot had or
    has, or that it supersedes in the report; and an increment's own date.
    """
    old, new = _in_force(before, zone), _in_force([*before, delivery], zone)
    touched = {
        order.order_id
        for slot in (*old, *new)
        for order in slot.orders
        if slot.delivery.slot == delivery.slot
        or (slot.delivery.kind == REPORT and order.ds == delivery.slot_date)
    }
    days = {order.ds for slot in (*old, *new) for order in slot.orders if order.order_id in touched}
    return days | ({delivery.slot_date} if delivery.slot_date else set())


# --- tables ---------------------------------------------------------------------------------------


def _newest(orders: Iterable[Order], key: str) -> list[Order]:
    """For each non-null key its order of the greatest (date_time, identity), sorted by the key."""
    newest: dict[str, Order] = {}
    for order in sorted(orders, key=lambda order: (order.date_time, order.order_id)):
        if (value := getattr(order, key)) is not None:
            newest[value] = order
    return [newest[value] for value in sorted(newest)]


def _sale(order: Order) -> SaleRow:
    """The fact of an order."""
    sign = -1 if order.status == REFUNDED else 1
    return SaleRow(
        order.ds,
        order.order_id,
        order.customer_id,
        order.item_id,
        order.city_id,
        order.status,
        sign * order.quantity,
        sign * order.payment_amount,
    )


def _periods(ds: date) -> Iterator[tuple[str, date]]:
    """The week, named by its Monday, and the month, named by its first day (SPEC 2)."""
    yield "weekly", ds - timedelta(days=ds.weekday())
    yield "monthly", ds.replace(day=1)


Measures = tuple[int, Decimal, int, Decimal, int, int]


def _retention(sales: Iterable[SaleRow]) -> Measures:
    """The measures over the rows of one period, or of one item in it (SPEC 2)."""
    shipped: Counter[str] = Counter()
    refunds: Counter[str] = Counter()
    net: defaultdict[str, Decimal] = defaultdict(Decimal)
    for sale in sales:
        if sale.customer_id is not None:
            (refunds if sale.status == REFUNDED else shipped)[sale.customer_id] += 1
            net[sale.customer_id] += sale.payment_amount
    new = [customer for customer, orders in shipped.items() if orders == 1]
    returning = [customer for customer, orders in shipped.items() if orders > 1]
    return (
        len(new),
        sum((net[customer] for customer in new), Decimal(0)),
        len(returning),
        sum((net[customer] for customer in returning), Decimal(0)),
        len(refunds),
        refunds.total(),
    )


def retention(sales: Iterable[SaleRow]) -> list[RetentionRow]:
    """``f_customer_retention`` of these facts, sorted by its key."""
    by_period: defaultdict[tuple[str, date], list[SaleRow]] = defaultdict(list)
    for sale in sales:
        for period in _periods(sale.ds):
            by_period[period].append(sale)
    return [
        RetentionRow(name, start, *_retention(by_period[name, start]))
        for name, start in sorted(by_period)
    ]


def item_retention(sales: Iterable[SaleRow]) -> list[ItemRetentionRow]:
    """``f_customer_retention_by_item`` of these facts, sorted by its key.

    Orders without an item are in no row: the item is in the key, and a key is not null.
    """
    by_key: defaultdict[tuple[str, date, str], list[SaleRow]] = defaultdict(list)
    for sale in sales:
        if sale.item_id is not None:
            for name, start in _periods(sale.ds):
                by_key[name, start, sale.item_id].append(sale)
    return [
        ItemRetentionRow(name, start, item, *_retention(by_key[name, start, item]))
        for name, start, item in sorted(by_key)
    ]


def calendar() -> list[CalendarRow]:
    """``d_calendar``: the days of 2010 to 2035."""
    days = (date(2036, 1, 1) - date(2010, 1, 1)).days
    rows = []
    for ds in (date(2010, 1, 1) + timedelta(days=n) for n in range(days)):
        iso = ds.isocalendar()
        monday = ds - timedelta(days=ds.weekday())
        rows.append(CalendarRow(ds, iso.year, iso.week, monday, ds.replace(day=1)))
    return rows


def tables(deliveries: Iterable[Delivery], zone: ZoneInfo = MOSCOW) -> Tables:
    """What these deliveries, landed in this order, must give.

    Raises RefusedFileError for a file that refuses its delivery: such a one was never landed.
    """
    slots = _in_force(deliveries, zone)
    orders = _holding(slots)
    sales = [_sale(order) for order in orders]
    lines = [line for slot in slots for line in slot.quarantined]
    return Tables(
        d_customer=[
            CustomerRow(str(order.customer_id), order.first_name, order.last_name)
            for order in _newest(orders, "customer_id")
        ],
        d_item=[ItemRow(str(o.item_id), o.item_name) for o in _newest(orders, "item_id")],
        d_city=[CityRow(str(o.city_id), o.city_name) for o in _newest(orders, "city_id")],
        f_sales=sales,
        f_customer_retention=retention(sales),
        f_customer_retention_by_item=item_retention(sales),
        quarantined=sorted(
            lines, key=lambda line: (line.kind, line.slot_date or date.min, line.file, line.line_no)
        ),
    )


def raw(deliveries: Iterable[Delivery], zone: ZoneInfo = MOSCOW) -> Raw:
    """What the raw tables must hold: all usable lines of the slots in force, superseded or not."""
    slots = _in_force(deliveries, zone)
    orders = [
        RawOrder(*slot.delivery.slot, *(getattr(order, f.name) for f in fields(order)))
        for slot in slots
        for order in slot.orders
    ]
    last: dict[tuple[str, date, str, date | None], int] = {}
    for order in orders:
        key = (order.order_id, order.ds, order.slot_kind, order.slot_date)
        last[key] = max(last.get(key, 0), order.line_no)
    return Raw(
        user_order_log=orders,
        order_copies=[RawCopy(*key, line_no) for key, line_no in last.items()],
        customer_research=[row for slot in slots for row in slot.research],
        user_activity_log=[row for slot in slots for row in slot.activities],
        price_log=[row for slot in slots for row in slot.prices],
    )


# --- comparison -----------------------------------------------------------------------------------


Row = (
    CustomerRow
    | ItemRow
    | CityRow
    | CalendarRow
    | SaleRow
    | RetentionRow
    | ItemRetentionRow
    | RawOrder
    | RawCopy
    | RawResearch
    | RawActivity
    | RawPrice
)
_KEYS: dict[type, tuple[str, ...]] = {
    CustomerRow: ("customer_id",),
    ItemRow: ("item_id",),
    CityRow: ("city_id",),
    CalendarRow: ("ds",),
    SaleRow: ("order_id",),
    RetentionRow: ("period_name", "period_id"),
    ItemRetentionRow: ("period_name", "period_id", "item_id"),
    RawOrder: ("slot_kind", "slot_date", "line_no"),
    RawCopy: ("order_id", "ds", "slot_kind", "slot_date"),
    RawResearch: ("slot_kind", "slot_date", "line_no"),
    RawActivity: ("slot_kind", "slot_date", "line_no"),
    RawPrice: ("slot_kind", "slot_date", "line_no"),
}


def _same(expected: object, actual: object) -> bool:
    """Whether a cell holds what it must, in its own type: counts are no decimals, money no floats."""
    return type(expected) is type(actual) and expected == actual


def _lines_of_difference(
    expected: Sequence[Row], actual: Sequence[Mapping[str, object]]
) -> Iterator[str]:
    """Every difference, one line each."""
    if not expected:
        yield from (f"row is extra: {dict(row)!r}" for row in actual)
        return
    columns = [field.name for field in fields(expected[0])]
    keys = _KEYS[type(expected[0])]
    absent = Counter(column for row in actual for column in columns if column not in row)
    for column, count in absent.items():
        yield f"column {column!r} is missing in {count} of {len(actual)} actual rows"
    if any(column in absent for column in keys):
        return  # no key, nothing to match by

    found: defaultdict[tuple[object, ...], list[Mapping[str, object]]] = defaultdict(list)
    for row in actual:
        found[tuple(row[key] for key in keys)].append(row)
    due = {tuple(getattr(row, key) for key in keys): row for row in expected}
    if len(due) != len(expected):
        raise ValueError("the expected rows repeat a key")

    for key, wanted in due.items():
        place = " ".join(map(str, key))
        if key not in found:
            yield f"{place}: row is missing, expected {wanted}"
        for row in found.get(key, []):
            for column in columns:
                value = getattr(wanted, column)
                if column in row and not _same(value, row[column]):
                    yield f"{place}: {column} is {row[column]!r}, expected {value!r}"
    for key, rows in found.items():
        place = " ".join(map(str, key))
        if key not in due:
            yield f"{place}: row is extra: {dict(rows[0])!r}"
        if len(rows) > 1:
            yield f"{place}: duplicate key, {len(rows)} rows"


def differences(
    expected: Sequence[Row], actual: Sequence[Mapping[str, object]], limit: int = 20
) -> list[str]:
    """How the actual rows differ from the expected ones, one readable line each; empty if equal.

    Rows are matched by the table's key and compared cell by cell, types included. Other columns are
    ignored. Beyond ``limit`` lines the last one counts those left out.
    """
    lines = list(_lines_of_difference(expected, actual))
    if len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more"]
