"""CRM clients over REST.

Data flow: GET {CRM_API_URL}/api/clients?updated_from= -> raw.crm_clients, one row a version.
Contract: SPEC.md section 1. The CRM shows only the present, so what was landed is the only history
there is: versions are appended and never overwritten.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import groupby, pairwise
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin
from zoneinfo import ZoneInfo

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from ingestion.days import DayRanges, business_day, day_start
from ingestion.errors import SourceError
from ingestion.ledger import LoadRecord
from ingestion.settings import HttpSettings, Settings, read_settings
from ingestion.sinks import Load, Quarantined, Version
from ingestion.sources import Request, Source
from ingestion.tables import Column, Kind, VersionTable

if TYPE_CHECKING:
    from ingestion.http import Answer

log = logging.getLogger(__name__)

CLIENTS = VersionTable(
    name="crm_clients",
    columns=(
        Column("id", Kind.TEXT, nullable=False),
        Column("segment", Kind.TEXT),
        Column("country", Kind.TEXT),
        Column("plan", Kind.TEXT),
        Column("created_at", Kind.INSTANT),
        Column("updated_at", Kind.INSTANT, nullable=False),
        Column("_content_hash", Kind.TEXT, nullable=False),
        Column("_payload", Kind.TEXT, nullable=False),
    ),
    key=("id", "updated_at", "_content_hash"),
    entity="id",
    since="updated_at",
    created="created_at",
    comment="Versions of clients as the CRM served them, appended; a null updated_at is created_at.",
)
ATTRIBUTES = ("segment", "country", "plan")
NOT_STORABLE = "text with U+0000 or not UTF-8"
NO_JSON = "a number that JSON has not, or too deep a nesting"
KEPT_IN_MEMORY = 1 << 24  # bytes of quarantined records
ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=True, allow_nan=False)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class CrmSettings(Settings):
    """`CRM_API_URL`, `CRM_API_TOKEN`, and `CRM_OVERLAP_DAYS` by which each call looks back (default 1)."""

    model_config = SettingsConfigDict(env_prefix="CRM_")

    api_url: HttpUrl
    api_token: SecretStr
    overlap_days: float = Field(default=1.0, ge=0, le=36_500)


@dataclass(frozen=True)
class Page:
    """Records as decoded, and the answer that they came in."""

    clients: Sequence[object]
    answer: Answer

    @cached_property
    def served(self) -> list[bytes]:
        """The bytes of each record as they were served: what quarantine keeps."""
        return self.answer.items("clients")


class CrmApi:
    """The CRM's REST API: paged, rate-limited, with a bearer token."""

    def __init__(self, settings: CrmSettings, http: HttpSettings) -> None:
        self._url = f"{str(settings.api_url).rstrip('/')}/api/clients"
        # Here, as every command imports this module: the HTTP stack is 8 MB and a tenth of a start.
        from ingestion.http import BearerAuth, JsonApi

        self._api = JsonApi("the CRM", self._url, BearerAuth(settings.api_token), http)

    def pages(self, updated_from: datetime) -> Iterator[Page]:
        """All records that changed since an instant (inclusive), in the order served, by pages.

        Raises SourceError when an answer has no list `clients`, naming the keys that it has, when
        a page comes twice, or as JsonApi.get does.
        """
        url, seen = self._url, set[str]()
        # Whole seconds, as in the contract: a little more is asked for, never less.
        naive = updated_from.astimezone(UTC).replace(tzinfo=None, microsecond=0)
        params: dict[str, str] | None = {"updated_from": f"{naive.isoformat()}Z"}
        while True:
            answer = self._api.get(url, params)
            page = answer.content
            if not isinstance(page, dict) or not isinstance(page.get("clients"), list):
                keys = sorted(page) if isinstance(page, dict) else type(page).__name__
                raise SourceError(f"the CRM's answer has no list `clients`; it has {keys}")
            yield Page(page["clients"], answer)
            # `next` wins, also where it is null: the page is then the last.
            following = page.get("next", answer.link)
            if following is None or following == "":
                return
            if not isinstance(following, str):
                raise SourceError(f"the CRM's `next` is no url but {type(following).__name__}")
            try:
                url, params = urljoin(url, following), None
            except ValueError:
                raise SourceError("the CRM's `next` is no url") from None
            if url in seen:
                raise SourceError("the CRM points to a page for the second time")
            seen.add(url)


@dataclass
class Served:
    """The records of one call, sorted into rows to append and what can't be used, as they stream by.

    What can't be used waits beside, since the warehouse is busy with the rows: on disk, if it is much.
    """

    pages: Iterable[Page]
    aside: IO[bytes]
    greatest: datetime | None = None

    def rows(self) -> Iterator[tuple[object, ...]]:
        """A row of CLIENTS for each usable record."""
        for page in self.pages:
            for place, record in enumerate(page.clients):
                row = client_row(record)
                if isinstance(row, str):
                    found = _quarantined(page.served[place], row)
                    self.aside.write(json.dumps(astuple(found)).encode("ascii") + b"\n")
                    continue
                updated_at = row[5]
                assert isinstance(updated_at, datetime)
                self.greatest = max(self.greatest or updated_at, updated_at)
                yield row

    def quarantined(self) -> Iterator[Quarantined]:
        """What could not be used, once all rows have streamed by."""
        self.aside.seek(0)
        return (Quarantined(*json.loads(line)) for line in self.aside)


def client_row(record: object) -> tuple[object, ...] | str:
    """The row of CLIENTS of one record, or the reason why it can't be used."""
    if not isinstance(record, dict):
        return "no object"
    client_id = record.get("id")
    if client_id is None:
        return "no id"
    instants: dict[str, datetime | None] = {}
    for name in ("created_at", "updated_at"):
        instants[name] = parse_instant(record.get(name))
        if instants[name] is None and record.get(name) is not None:
            return f"{name} is no instant"
    since = instants["updated_at"] or instants["created_at"]
    if since is None:
        return "neither updated_at nor created_at"
    used = {"id": client_id, **{name: record.get(name) for name in ATTRIBUTES}}
    for name, value in used.items():
        if isinstance(value, dict | list):
            return f"{name} is neither text nor number"
    values = [_text(value) for value in used.values()]
    if not all(value is None or storable(value) for value in values):
        return NOT_STORABLE
    try:
        # ASCII escapes keep what PostgreSQL could not in fields that nobody reads.
        payload = ENCODER.encode(record)
    except (ValueError, RecursionError):
        return NO_JSON
    digest = hashlib.blake2b(payload.encode("ascii"), digest_size=16).hexdigest()
    return (*values, instants["created_at"], since, digest, payload)


def parse_instant(value: object) -> datetime | None:
    """An ISO 8601 text as an instant in UTC (naive is UTC); None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value.strip())
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def storable(text: str) -> bool:
    """Whether a warehouse's text can hold it: valid UTF-8 without U+0000."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def changed_days(versions: Iterable[Version], zone: ZoneInfo) -> DayRanges:
    """The days whose attributes a load can change: from each change to the next version.

    `versions` are all those of the touched clients, sorted by (entity, since, served). A version is
    valid on the days from its own to the day before the next one's; the earliest from the lesser
    of its created and since.
    """
    # A set: there are few days, however many clients.
    ranges: set[tuple[date, date | None]] = set()
    for _, group in groupby(versions, key=lambda version: version.entity):
        stored = list(group)
        known = [v for v in stored if v.served_before is not None]
        if not known:
            # A new client, and on the first load all of them: from its first version on.
            stored = [v for v in stored if v.since == stored[0].since]
        after = _spans(_timeline(stored, lambda v: v.served), zone)
        before = _spans(_timeline(known, lambda v: v.served_before or 0), zone)
        ranges.update(_differing(before, after))
    return DayRanges.merged(ranges)


def land(load: Load, request: Request) -> LoadRecord:
    """Append the client versions that the CRM serves and we have not; a second call adds nothing.

    Raises SourceError as CrmApi.pages does; then nothing is landed.
    """
    settings = read_settings(CrmSettings)
    api = CrmApi(settings, read_settings(HttpSettings))
    history = load.loads()
    since = watermark(history, timedelta(days=settings.overlap_days))
    if request.window is not None:
        since = min(since, day_start(request.window.start, request.zone))
    started_at = datetime.now(UTC)
    log.info("crm: asking for what changed since %s", since.isoformat())
    with SpooledTemporaryFile(KEPT_IN_MEMORY) as aside:
        served = Served(api.pages(updated_from=since), aside)
        added, touched = load.append_versions(CLIENTS, served.rows())
        changed = changed_days(touched, request.zone)
        quarantined = load.quarantine(served.quarantined())
    log.info("crm: %d new versions", added)
    greatest = max(filter(None, [served.greatest, _seen(history)]), default=None)
    return LoadRecord(
        source=SOURCE.name,
        window=request.window,
        rows_landed=added,
        rows_quarantined=quarantined,
        changed=changed,
        cursor={"greatest_updated_at": greatest.isoformat()} if greatest else {},
        started_at=started_at,
    )


def watermark(history: Iterable[LoadRecord], overlap: timedelta) -> datetime:
    """From when to ask: the lesser of the greatest updated_at seen and the start of the last
    completed call, less an overlap; 1970 before the first."""
    loads = list(history)
    greatest = _seen(loads)
    if greatest is None:
        return BEGINNING
    # In this order: nothing can be taken from the calendar's first day.
    return max(BEGINNING + overlap, min(greatest, loads[-1].started_at)) - overlap


def _seen(history: Iterable[LoadRecord]) -> datetime | None:
    found = [load.cursor["greatest_updated_at"] for load in history if load.cursor]
    return datetime.fromisoformat(found[-1]) if found else None


def _text(value: object) -> str | None:
    """A JSON value as text: a text itself, anything else as JSON writes it."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _quarantined(served: bytes, reason: str) -> Quarantined:
    try:
        if reason != NOT_STORABLE:
            return Quarantined("clients", served.decode(), reason)
    except UnicodeDecodeError:
        pass
    return Quarantined("clients", base64.b64encode(served).decode("ascii"), reason, "base64")


@dataclass(frozen=True)
class _Point:
    """The version that holds from an instant on: which of those served, and its created_at."""

    since: datetime
    served: int
    created: datetime | None


def _timeline(versions: Iterable[Version], served: Callable[[Version], int]) -> list[_Point]:
    """Of the versions with an equal instant, the one served last; by instant."""
    points: dict[datetime, _Point] = {}
    for version in versions:
        held = points.get(version.since)
        if held is None or held.served < served(version):
            points[version.since] = _Point(version.since, served(version), version.created)
    return [points[since] for since in sorted(points)]


@dataclass(frozen=True)
class _Span:
    """The days from `start` on, up to the next span's, at whose end a version holds."""

    start: date
    point: _Point


def _spans(timeline: Sequence[_Point], zone: ZoneInfo) -> list[_Span]:
    """The days at whose end each version holds, oldest first; the last one's are open."""
    spans = [_Span(business_day(point.since, zone), point) for point in timeline]
    if spans:
        first = timeline[0]
        born = business_day(min(first.since, first.created or first.since), zone)
        spans[0] = _Span(born, first)
    return spans


def _differing(
    before: Sequence[_Span], after: Sequence[_Span]
) -> Iterator[tuple[date, date | None]]:
    """The ranges of days at whose end another version holds than before, or one holds newly."""
    cuts: set[date] = {span.start for span in [*before, *after]}
    ends: list[date | None] = [*sorted(cuts), None]
    for start, end in pairwise(ends):
        if start is not None and _held(before, start) != _held(after, start):
            yield start, end


def _held(spans: Sequence[_Span], day: date) -> _Point | None:
    # Of several that begin on one day the last one holds at its end.
    place = bisect_right(spans, day, key=lambda span: span.start)
    return spans[place - 1].point if place else None


SOURCE = Source(name="crm", domain="telemetry", tables=(CLIENTS,), land=land, by_window=False)
