"""Orders: files that a report API announces and S3 holds.

Data flow: report API -> urls -> S3 -> raw.user_order_log, raw.customer_research,
raw.user_activity_log, raw.price_log. Contract: SPEC.md section 2. A delivery, the report or the
increment of a day, replaces what its slot had; raw.order_files says which files are in force.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial

from ingestion.days import DayRanges, Window
from ingestion.errors import DeliveryError, NotYetError
from ingestion.ledger import LandedDay, LoadRecord
from ingestion.reports_api import Increment, Report, ReportsApi, reports_api
from ingestion.s3 import S3, S3Settings, shown
from ingestion.settings import HttpSettings, read_settings
from ingestion.sinks import DeliveredFile, LandedFile, Load, Slot
from ingestion.sources import Request, Source
from ingestion.tables import Column, Field, FileTable, Identity, Kind, StateTable

log = logging.getLogger(__name__)

COPIES = StateTable(
    name="order_copies",
    columns=(
        Column("order_id", Kind.TEXT, nullable=False),
        Column("ds", Kind.DATE, nullable=False),
        Column("slot_kind", Kind.TEXT, nullable=False),
        Column("slot_date", Kind.DATE),
        Column("last_line_no", Kind.BIGINT, nullable=False),
    ),
    indexed=("order_id",),
    comment="Where each order occurs: its last line in each slot on each day. Says which copy holds.",
)
FILES = StateTable(
    name="order_files",
    columns=(
        Column("slot_kind", Kind.TEXT, nullable=False),
        Column("slot_date", Kind.DATE),
        Column("file", Kind.TEXT, nullable=False),
        Column("delivery_id", Kind.TEXT, nullable=False),
        Column("url", Kind.TEXT, nullable=False),
        Column("etag", Kind.TEXT, nullable=False),
        Column("size_bytes", Kind.BIGINT, nullable=False),
        Column("rows_landed", Kind.BIGINT, nullable=False),
        Column("rows_quarantined", Kind.BIGINT, nullable=False),
        Column("days", Kind.TEXT, nullable=False),
        Column("landed_at", Kind.INSTANT, nullable=False),
    ),
    unique=("slot_kind", "slot_date", "file"),
    comment="The files now in force: of the newest report, and of the newest increment of each date.",
)
# PostgreSQL's index of the copies takes 2,700 bytes; an id that long is none.
LONGEST_ID = 1_000
ORDER_LOG = FileTable(
    name="user_order_log",
    fields=(
        Field("id", stored=False),
        Field("uniq_id", longest=LONGEST_ID),
        Field("date_time", Kind.INSTANT, needed=True, required=True),
        Field("city_id", needed=True),
        Field("city_name"),
        Field("customer_id", needed=True),
        Field("first_name"),
        Field("last_name"),
        Field("item_id", needed=True),
        Field("item_name"),
        Field("quantity", Kind.QUANTITY, needed=True, required=True, minimum=0),
        Field("payment_amount", Kind.MONEY, needed=True, required=True, minimum=0),
        Field("status", required=True, default="shipped", allowed=("shipped", "refunded")),
    ),
    dated_by="date_time",
    identity=Identity(
        name="order_id",
        key="uniq_id",
        content=(
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
        ),
        copies=COPIES.name,
    ),
    registry=FILES.name,
    comment="Order lines as delivered, of all slots; order_copies says which of them hold.",
)
CUSTOMER_RESEARCH = FileTable(
    name="customer_research",
    fields=(
        Field("date_id", Kind.INSTANT, needed=True, required=True, stored=False),
        Field("category_id"),
        Field("geo_id"),
        Field("sales_qty", Kind.QUANTITY),
        Field("sales_amt", Kind.MONEY),
    ),
    dated_by="date_id",
    registry=FILES.name,
    comment="Sales by day, category and place as delivered, of all slots.",
)
ACTIVITY_LOG = FileTable(
    name="user_activity_log",
    fields=(
        Field("id", stored=False),
        Field("uniq_id"),
        Field("date_time", Kind.INSTANT, needed=True, required=True),
        Field("action_id"),
        Field("customer_id"),
        Field("quantity", Kind.QUANTITY),
    ),
    dated_by="date_time",
    registry=FILES.name,
    comment="Customers' actions as delivered, of all slots.",
)
PRICE_LOG = FileTable(
    name="price_log",
    fields=(Field("item_name"), Field("price", Kind.MONEY)),
    header=False,
    registry=FILES.name,
    comment="Prices of items as delivered, of all slots.",
)
# In the order in which they are landed: from the orders on readers may have to wait.
FILE_TABLES = (CUSTOMER_RESEARCH, ACTIVITY_LOG, PRICE_LOG, ORDER_LOG)
# The names of files drift (`custom_research`, `user_orders_log_inc`), their beginnings do not.
BEGINNINGS = {
    "user_order": ORDER_LOG,
    "custom": CUSTOMER_RESEARCH,
    "user_activity": ACTIVITY_LOG,
    "price": PRICE_LOG,
}
REPORT_ID = "report_id"


@dataclass(frozen=True)
class Delivery:
    """What the report API announced for a slot: its id, and the url of each table's file."""

    slot: Slot
    delivery_id: str
    urls: Mapping[FileTable, str]


@dataclass
class Landing:
    """What a load has done so far."""

    rows: int = 0
    quarantined: int = 0
    changed: set[date] = field(default_factory=set)


def prepare(history: Sequence[LoadRecord], request: Request) -> Request:
    """Have a report made where one is needed, and wait for it: before the load, which would keep a
    transaction open all the while."""
    if request.task_id is not None or (request.mode == "increment" and report_id(history)):
        return request
    api = reports_api()
    task_id = api.request_report()
    log.info("orders: asked for a report, task %s", task_id)
    api.wait_for_report(task_id)
    return replace(request, task_id=task_id)


def land(load: Load, request: Request) -> LoadRecord:
    """Land the report of a task, the increments of the window, or first the one and then the others.

    Days of the window whose increment is not there yet are named in the record's `not_yet`.

    Raises NotYetError when nothing of it is there yet, SourceError when the report API or S3 fails
    or a file can't be used as a whole.
    """
    started_at = datetime.now(UTC)
    api = reports_api()
    s3 = S3(read_settings(S3Settings), read_settings(HttpSettings))
    deliveries: list[Delivery] = []
    report = report_id(load.loads())
    if request.task_id is not None:
        found = api.look_at_report(request.task_id)
        if found is None:
            raise NotYetError(f"orders: the report of task {request.task_id} is still being made")
        deliveries.append(report_delivery(found))
        report = found.report_id
    missing: list[date] = []
    if request.mode == "increment":
        assert request.window is not None
        assert report is not None
        increments, missing = _increments(api, report, request.window)
        deliveries += increments
    if not deliveries:
        raise NotYetError(_not_yet(missing))
    landing = Landing()
    for delivery in deliveries:
        land_delivery(load, s3, delivery, request, landing)
    return LoadRecord(
        source=SOURCE.name,
        window=request.window,
        rows_landed=landing.rows,
        rows_quarantined=landing.quarantined,
        changed=DayRanges.of_days(landing.changed),
        days=_landed_days(load.files(ORDER_LOG), landing.changed),
        cursor={REPORT_ID: report} if report is not None else {},
        not_yet=_not_yet(missing) if missing else "",
        started_at=started_at,
    )


def late(load: Load, request: Request) -> list[Request]:
    """The days before the window whose increment is there and not landed, if these are asked for:
    one each. Those that are not there yet are told of. Raises SourceError when that can't be told.
    """
    report = report_id(load.loads())
    if request.missing_from is None or request.window is None or report is None:
        return []
    if request.missing_from >= request.window.start:
        return []
    api = reports_api()
    landed = {file.slot.day for file in load.files(ORDER_LOG)}
    alone = replace(request, missing_from=None, task_id=None)
    found = []
    for day in Window(request.missing_from, request.window.start):
        if day in landed:
            continue
        if _is_there(api, report, day):
            found.append(replace(alone, window=Window.of_day(day)))
        else:
            log.warning("%s; a later run asks for it again", _not_yet([day]))
    return found


def land_delivery(
    load: Load, s3: S3, delivery: Delivery, request: Request, landing: Landing
) -> None:
    """Put the files of a delivery in the place of those of its slot, where they are others."""
    for table in FILE_TABLES:
        held = next((f for f in load.files(table) if f.slot == delivery.slot), None)
        url = delivery.urls.get(table)
        if url is None:
            if held is not None:
                log.warning("%s: no %s any more", _told(delivery.slot), table.name)
                _, changed = load.replace_slot(table, delivery.slot, None, request.zone)
                landing.changed |= changed
            continue
        version = s3.version(url)
        file = DeliveredFile(
            delivery_id=delivery.delivery_id,
            url=shown(url),
            etag=version.etag,
            size_bytes=version.size,
            read=partial(s3.read, url, version),
        )
        if held is not None and _is_same(held, file) and not request.again:
            log.info("%s: %s is as it was", _told(delivery.slot), table.name)
            continue
        landed, changed = load.replace_slot(table, delivery.slot, file, request.zone)
        assert landed is not None
        log.info("%s: %d rows of %s", _told(delivery.slot), landed.rows_landed, table.name)
        landing.rows += landed.rows_landed
        landing.quarantined += landed.rows_quarantined
        landing.changed |= changed


def report_delivery(report: Report) -> Delivery:
    """What a report delivers. Raises DeliveryError as file_urls does."""
    return Delivery(slot=Slot("report"), delivery_id=report.report_id, urls=file_urls(report.urls))


def increment_delivery(increment: Increment) -> Delivery:
    """What an increment delivers. Raises DeliveryError as file_urls does."""
    return Delivery(
        slot=Slot("increment", increment.day),
        delivery_id=increment.increment_id,
        urls=file_urls(increment.urls),
    )


def file_urls(urls: Mapping[str, str]) -> dict[FileTable, str]:
    """The url of each table's file, whatever the files are called.

    Raises DeliveryError when there is no file of orders, or there are two of one kind.
    """
    found: dict[FileTable, str] = {}
    for name, url in urls.items():
        table = next((t for begins, t in BEGINNINGS.items() if name.startswith(begins)), None)
        if table is None:
            log.info("orders: a file that the contract does not know: %s", name)
            continue
        if table in found:
            raise DeliveryError(
                f"orders: two files for {table.name}, which one holds? {list(urls)}"
            )
        found[table] = url
    if ORDER_LOG not in found:
        raise DeliveryError(f"orders: a delivery without {ORDER_LOG.name}; it has {sorted(urls)}")
    return found


def report_id(history: Sequence[LoadRecord]) -> str | None:
    """The report by which increments are asked for: the one landed last."""
    return history[-1].cursor.get(REPORT_ID) if history else None


def _increments(
    api: ReportsApi, report: str, days: Iterable[date]
) -> tuple[list[Delivery], list[date]]:
    """What is there of these days, and the days of which there is nothing yet."""
    found, missing = [], []
    for day in days:
        increment = api.increment(report, day)
        if increment is None:
            missing.append(day)
        else:
            found.append(increment_delivery(increment))
    return found, missing


def _is_there(api: ReportsApi, report: str, day: date) -> bool:
    """Whether there is an increment, of use or not."""
    try:
        return api.increment(report, day) is not None
    except DeliveryError:
        return True


def _not_yet(days: Sequence[date]) -> str:
    return f"orders: the source has no increment yet of {', '.join(map(str, days))}"


def _is_same(held: LandedFile, file: DeliveredFile) -> bool:
    return (held.url, held.etag, held.size_bytes) == (file.url, file.etag, file.size_bytes)


def _landed_days(files: Sequence[LandedFile], days: Iterable[date]) -> dict[date, LandedDay]:
    """What each day holds now. Equal files are equal rows: nothing has to be read for the digest."""
    landed = {}
    for day in days:
        about = [file for file in files if day in file.days or file.slot.day == day]
        names = sorted(f"{f.slot.kind} {f.slot.day} {f.etag} {f.size_bytes}" for f in about)
        landed[day] = LandedDay(
            rows=sum(file.days.get(day, 0) for file in about),
            digest=hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest(),
        )
    return landed


def _told(slot: Slot) -> str:
    return "orders, the report" if slot.day is None else f"orders, the increment of {slot.day}"


SOURCE = Source(
    name="orders",
    domain="orders",
    tables=(*FILE_TABLES, COPIES, FILES),
    land=land,
    by_window=True,
    prepare=prepare,
    late=late,
)
