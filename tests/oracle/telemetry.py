"""What SPEC section 1 (CRM and telemetry) says the tables must hold.

An independent source of truth: the standard library only, written from SPEC and from no model or
loader. It starts from what the sources say (the CRM's JSON, the rows of ``telemetry_events``) and
computes the clients' history, the deduplicated events and ``dm_client_telemetry``.

Text is compared as Python ``str``: the order of code points is the order of UTF-8 bytes (SPEC 0).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple
from zoneinfo import ZoneInfo

Event = Mapping[str, object]
Number = int | float | Decimal

MOSCOW = ZoneInfo("Europe/Moscow")
RELATIVE_TOLERANCE = 1e-9  # SPEC 0, Numbers

_KEY_COLUMNS = ("ds", "client_id")
_DOUBLES = frozenset({"avg_latency_ms", "p95_latency_ms"})


@dataclass(frozen=True, slots=True)
class ClientVersion:
    """One version of a client, valid in ``[valid_from, valid_to)``; all instants are aware UTC.

    ``updated_at`` is the effective one: a null ``updated_at`` means ``created_at`` (SPEC 1).
    """

    id: str
    segment: str | None
    country: str | None
    plan: str | None
    created_at: datetime | None
    updated_at: datetime
    valid_from: datetime
    valid_to: datetime | None


@dataclass(frozen=True, slots=True)
class MartRow:
    """One row of ``dm_client_telemetry`` without ``loaded_at``, which is not compared (SPEC 0)."""

    ds: date
    client_id: str
    segment: str | None
    country: str | None
    plan: str | None
    events_cnt: int
    errors_cnt: int
    avg_latency_ms: float | None
    p95_latency_ms: float | None
    sessions_cnt: int
    last_event_at: datetime


class _UnusableError(ValueError):
    """A value that can't be used: its record is quarantined (SPEC 0, Quarantine)."""


class _CrmRecord(NamedTuple):
    """One usable CRM record, typed."""

    id: str
    segment: str | None
    country: str | None
    plan: str | None
    created_at: datetime | None
    updated_at: datetime


class _Row(NamedTuple):
    """One usable event; the columns before the last are the order in which a tie is decided."""

    event_ts: datetime
    duration_ms: Number | None
    client_id: str | None
    event_type: str | None
    status: str | None
    session_id: str | None
    event_id: str | None


# --- values ---------------------------------------------------------------------------------------


def _utc(instant: datetime) -> datetime:
    """The instant in UTC; a naive one is UTC already (SPEC 0, Days)."""
    if instant.tzinfo is None:
        return instant.replace(tzinfo=UTC)
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


def _iso_instant(value: object) -> datetime | None:
    """An ISO instant of the CRM in UTC, null as None; anything else can't be used."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _UnusableError(f"not an ISO instant: {value!r}")
    try:
        return _utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError) as error:
        raise _UnusableError(f"not an ISO instant: {value!r}") from error


def _text(value: object) -> str | None:
    """The value as text (42 is '42'); what an engine can't hold can't be used (SPEC 0, Text)."""
    if value is None:
        return None
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, Mapping | list | tuple | bytes):
        raise _UnusableError(f"not text: {value!r}")
    else:
        text = str(value)
    if "\0" in text:
        raise _UnusableError(f"U+0000 in {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _UnusableError(f"not UTF-8: {text!r}") from error
    return text


# --- clients --------------------------------------------------------------------------------------


def _crm_record(record: Mapping[str, object]) -> _CrmRecord:
    """One record typed, or _UnusableError when it belongs to the quarantine (SPEC 1)."""
    client_id = _text(record.get("id"))
    created_at = _iso_instant(record.get("created_at"))
    updated_at = _iso_instant(record.get("updated_at")) or created_at
    if client_id is None or updated_at is None:
        raise _UnusableError("no id, or neither updated_at nor created_at")
    return _CrmRecord(
        client_id,
        _text(record.get("segment")),
        _text(record.get("country")),
        _text(record.get("plan")),
        created_at,
        updated_at,
    )


def _versions(holding: Iterable[_CrmRecord]) -> list[ClientVersion]:
    """The versions of one client (one for each updated_at), chained by updated_at."""
    ordered = sorted(holding, key=lambda record: record.updated_at)
    starts = [record.updated_at for record in ordered]
    ends: list[datetime | None] = [*starts[1:], None]
    if (created_at := ordered[0].created_at) is not None:
        starts[0] = min(created_at, starts[0])
    return [
        ClientVersion(*record, valid_from, valid_to)
        for record, valid_from, valid_to in zip(ordered, starts, ends, strict=True)
    ]


def client_history(served: Iterable[Mapping[str, object]]) -> dict[str, list[ClientVersion]]:
    """Each client's versions, oldest first, from the records in the order the CRM served them.

    SPEC 1, ``ods_crm_clients``: ordered by ``updated_at`` and not by arrival; for equal
    ``updated_at`` the one served last holds; null attributes overwrite; the earliest version is
    valid from the lesser of its ``created_at`` and ``updated_at``. The quarantined are left out.
    """
    holding: defaultdict[str, dict[datetime, _CrmRecord]] = defaultdict(dict)
    for record in served:
        try:
            typed = _crm_record(record)
        except _UnusableError:
            continue
        holding[typed.id][typed.updated_at] = typed
    return {client_id: _versions(holding[client_id].values()) for client_id in sorted(holding)}


def current_clients(served: Iterable[Mapping[str, object]]) -> dict[str, ClientVersion]:
    """The current row of each client: its last version (SPEC 1, ``ods_crm_clients``)."""
    return {client_id: versions[-1] for client_id, versions in client_history(served).items()}


def quarantined_clients(served: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The records that can't be used, as served and in that order, repeats included (SPEC 1)."""
    quarantined = []
    for record in served:
        try:
            _crm_record(record)
        except _UnusableError:
            quarantined.append(record)
    return quarantined


# --- events ---------------------------------------------------------------------------------------


def business_day(instant: datetime, tz: ZoneInfo) -> date:
    """The day of the instant in the business time zone; a naive instant is UTC (SPEC 0, Days)."""
    return _utc(instant).astimezone(tz).date()


def _end_of_day(day: date, tz: ZoneInfo) -> datetime:
    """The first instant, in UTC, that no longer belongs to the business day.

    Where the clocks skip that midnight, fold=0 reads it with the offset before the change, which
    is the very instant of the change.
    """
    following = day + timedelta(days=1)
    return datetime(following.year, following.month, following.day, tzinfo=tz).astimezone(UTC)


def _row(event: Event) -> _Row | None:
    """One event typed, or None when it is quarantined; a type out of contract is an error."""
    event_ts, duration = event["event_ts"], event["duration_ms"]
    if event_ts is None:
        return None
    if not isinstance(event_ts, datetime):
        raise TypeError(f"event_ts is not a datetime: {event_ts!r}")
    if duration is not None and not isinstance(duration, int | float | Decimal):
        raise TypeError(f"duration_ms is not a number: {duration!r}")
    try:
        return _Row(
            _utc(event_ts),
            duration,
            _text(event["client_id"]),
            _text(event["event_type"]),
            _text(event["status"]),
            _text(event["session_id"]),
            _text(event.get("event_id")),
        )
    except _UnusableError:
        return None


def _precedence(row: _Row) -> tuple[tuple[bool, object], ...]:
    """What decides between rows with one event_id: nulls are lowest, the greatest wins (SPEC 1)."""
    return tuple((value is not None, value) for value in row[:-1])


def _surviving(
    events: Iterable[Event], tz: ZoneInfo, days: Collection[date] | None = None
) -> dict[date, list[_Row]]:
    """The usable events of each day (of ``days`` only, if given), one for each non-null id."""
    wanted = None if days is None else frozenset(days)
    by_day: defaultdict[date, dict[str | int, _Row]] = defaultdict(dict)
    for position, event in enumerate(events):
        if (row := _row(event)) is None:
            continue
        ds = row.event_ts.astimezone(tz).date()
        if wanted is not None and ds not in wanted:
            continue
        key = position if row.event_id is None else row.event_id  # an int never equals a str
        rival = by_day[ds].get(key)
        if rival is None or _precedence(row) > _precedence(rival):
            by_day[ds][key] = row
    return {ds: list(by_day[ds].values()) for ds in sorted(by_day)}


def deduplicated(events: Iterable[Event], tz: ZoneInfo) -> dict[date, list[Event]]:
    """``ods_telemetry``: the usable events of each business day, null clients included.

    SPEC 1, ``stg_telemetry``: a non-null ``event_id`` is unique within a ``ds``: the latest
    ``event_ts`` wins, then the greatest duration, client, type, status, session, nulls lowest;
    rows without an id are never deduplicated. Each event comes back with its seven columns, ids
    as text and ``event_ts`` in UTC; the order within a day means nothing.
    """
    return {ds: [row._asdict() for row in rows] for ds, rows in _surviving(events, tz).items()}


# --- mart -----------------------------------------------------------------------------------------


def _average(latencies: Sequence[Number]) -> float | None:
    """The exact mean, rounded once to a double; null of nothing (SPEC 0, Numbers)."""
    if not latencies:
        return None
    if all(isinstance(latency, int) for latency in latencies):
        return sum(map(int, latencies)) / len(latencies)  # int / int is rounded correctly
    return float(sum(map(Fraction, latencies)) / len(latencies))


def _p95(latencies: Sequence[Number]) -> float | None:
    """``percentile_cont(0.95)``, interpolated exactly, rounded once; null of nothing (SPEC 1)."""
    if not latencies:
        return None
    ordered = sorted(latencies)
    below, twentieths = divmod(19 * (len(ordered) - 1), 20)  # 0.95 * (n - 1) in exact twentieths
    value = Fraction(ordered[below])
    if twentieths:
        value += (Fraction(ordered[below + 1]) - value) * Fraction(twentieths, 20)
    return float(value)


def _valid_before(versions: Sequence[ClientVersion], end: datetime) -> ClientVersion | None:
    """The version valid just before ``end``: one that begins at ``end`` is not yet valid."""
    started = bisect_left(versions, end, key=lambda version: version.valid_from)
    return versions[started - 1] if started else None


def client_telemetry(
    served: Iterable[Mapping[str, object]],
    events: Iterable[Event],
    tz: ZoneInfo = MOSCOW,
    days: Collection[date] | None = None,
) -> list[MartRow]:
    """``dm_client_telemetry``, sorted by ds and by client_id in UTF-8 bytes (SPEC 1).

    ``served`` are the CRM's records in the order served over all completed calls, ``events`` the
    rows of the telemetry source; ``days`` restricts the answer, None means every day with events.
    """
    history = client_history(served)
    mart = []
    for ds, rows in _surviving(events, tz, days).items():
        end = _end_of_day(ds, tz)
        by_client: defaultdict[str, list[_Row]] = defaultdict(list)
        for row in rows:
            if row.client_id is not None:
                by_client[row.client_id].append(row)
        for client_id in sorted(by_client):
            client = _valid_before(history.get(client_id, ()), end)
            mart.append(_mart_row(ds, client_id, client, by_client[client_id]))
    return mart


def _mart_row(
    ds: date, client_id: str, client: ClientVersion | None, rows: Sequence[_Row]
) -> MartRow:
    """The mart's row of one client's events of one day."""
    latencies = [row.duration_ms for row in rows if row.duration_ms is not None]
    return MartRow(
        ds=ds,
        client_id=client_id,
        segment=client.segment if client else None,
        country=client.country if client else None,
        plan=client.plan if client else None,
        events_cnt=len(rows),
        errors_cnt=sum(row.status == "error" for row in rows),
        avg_latency_ms=_average(latencies),
        p95_latency_ms=_p95(latencies),
        sessions_cnt=len({row.session_id for row in rows if row.session_id is not None}),
        last_event_at=max(row.event_ts for row in rows),
    )


# --- comparison -----------------------------------------------------------------------------------


def _same(column: str, expected: object, actual: object) -> bool:
    """Whether a cell holds what it must: doubles to 1e-9 relative, instants as instants."""
    if expected is None or actual is None:
        return expected is actual
    if column in _DOUBLES:
        if not isinstance(expected, float) or not isinstance(actual, int | float | Decimal):
            return False
        return math.isclose(expected, float(actual), rel_tol=RELATIVE_TOLERANCE, abs_tol=0.0)
    if isinstance(expected, datetime):
        return isinstance(actual, datetime) and _utc(expected) == _utc(actual)
    return expected == actual


def _lines(expected: Sequence[MartRow], actual: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Every difference, one line each."""
    columns = [field.name for field in fields(MartRow)]
    absent = Counter(column for row in actual for column in columns if column not in row)
    for column, count in absent.items():
        yield f"column {column!r} is missing in {count} of {len(actual)} actual rows"
    if any(column in absent for column in _KEY_COLUMNS):
        return  # no key, nothing to match by

    found: defaultdict[tuple[object, object], list[Mapping[str, object]]] = defaultdict(list)
    for actual_row in actual:
        found[actual_row["ds"], actual_row["client_id"]].append(actual_row)
    due = {(row.ds, row.client_id): row for row in expected}
    if len(due) != len(expected):
        raise ValueError("the expected rows repeat a key")

    for (ds, client_id), row in due.items():
        place = f"{ds} {client_id!r}"
        rows = found.get((ds, client_id), [])
        if not rows:
            yield f"{place}: row is missing, expected {row}"
        for actual_row in rows:
            for column in columns:
                wanted = getattr(row, column)
                if column in actual_row and not _same(column, wanted, actual_row[column]):
                    yield f"{place}: {column} is {actual_row[column]!r}, expected {wanted!r}"
    for (extra_ds, extra_client), rows in found.items():
        place = f"{extra_ds} {extra_client!r}"
        if (extra_ds, extra_client) not in due:
            yield f"{place}: row is extra: {dict(rows[0])!r}"
        if len(rows) > 1:
            yield f"{place}: duplicate key, {len(rows)} rows"


def differences(
    expected: Sequence[MartRow], actual: Sequence[Mapping[str, object]], limit: int = 20
) -> list[str]:
    """How the actual rows differ from the expected ones, one readable line each; empty if equal.

    Rows are matched by (ds, client_id) and compared cell by cell: doubles to 1e-9 relative,
    ``last_event_at`` as an instant, everything else exactly. Other columns are ignored. Beyond
    ``limit`` lines the last one counts those left out.
    """
    lines = list(_lines(expected, actual))
    if len(lines) <= limit:
        return lines
    return [*lines[:limit], f"... and {len(lines) - limit} more"]
