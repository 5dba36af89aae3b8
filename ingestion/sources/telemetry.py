"""Telemetry events from another PostgreSQL.

Data flow: telemetry_events, by ranges of event_ts -> raw.telemetry_events, by business days.
Contract: SPEC.md section 1. Bytes of a binary COPY pass through, a day at a time; where a column's
type is another, the source's server casts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal
from zoneinfo import ZoneInfo

import asyncpg
from asyncpg.cursor import Cursor
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from ingestion.days import DAY, DayRanges, Window, day_start
from ingestion.errors import SourceError, UsageError
from ingestion.ledger import LandedDay, LoadRecord, landed_days
from ingestion.settings import Settings, read_settings
from ingestion.sinks import BulkFormat, Load, Quarantined
from ingestion.sources import Request, Source
from ingestion.tables import Column, DayTable, Kind

log = logging.getLogger(__name__)

EVENTS = DayTable(
    name="telemetry_events",
    columns=(
        Column("event_id", Kind.TEXT),
        Column("client_id", Kind.TEXT),
        Column("event_type", Kind.TEXT),
        Column("duration_ms", Kind.DOUBLE),
        Column("status", Kind.TEXT),
        Column("session_id", Kind.TEXT),
        Column("event_ts", Kind.INSTANT, nullable=False),
    ),
    comment="Telemetry events as the source holds them, a partition a business day of event_ts.",
)
OPTIONAL = {"event_id"}
FORMATS: Mapping[BulkFormat, Literal["binary", "text"]] = {"pgcopy": "binary", "tsv": "text"}
CHUNKS_AHEAD = 4
ROWS_AT_ONCE = 1_000
CLOSING_SECONDS = 5.0
# A setting of the source's transaction, by which its statements say that there was such an event.
LEFT_OUT = "vitrina.left_out"

# NaN is the greatest number there; what has no double, great or small, can't be cast to one.
NOT_FINITE = "duration_ms in ('NaN', 'Infinity', '-Infinity')"
BEYOND_DOUBLE = (
    "(abs(duration_ms) > 1.7976931348623157e308"
    " or duration_ms <> 0 and abs(duration_ms) < 2.2250738585072014e-308)"
)

# A server without an encoding of its own hands out any bytes: RFC 3629 as a pattern over their hex.
UTF8_HEX = (
    "^([0-7][0-9a-f]"
    "|(c[2-9a-f]|d[0-9a-f])[89ab][0-9a-f]"
    "|e0[ab][0-9a-f][89ab][0-9a-f]"
    "|(e[1-9a-c]|e[ef])([89ab][0-9a-f]){2}"
    "|ed[89][0-9a-f][89ab][0-9a-f]"
    "|f0[9ab][0-9a-f]([89ab][0-9a-f]){2}"
    "|f[1-3]([89ab][0-9a-f]){3}"
    "|f48[0-9a-f]([89ab][0-9a-f]){2})*$"
)


class TelemetrySettings(Settings):
    """`TELEMETRY_DB_URL`, and `TELEMETRY_LOOKBACK_DAYS` landed before the window (default 3)."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_")

    db_url: SecretStr
    lookback_days: int = Field(default=3, ge=0)


@dataclass(frozen=True)
class EventQueries:
    """The statements that read one source table, made for its columns' types.

    Reading the events of a range marks the transaction (`LEFT_OUT`) where one of them can't be used:
    only then is the range searched for such events, which would cost a tenth of a load.
    """

    select: Mapping[BulkFormat, str]
    instant: str
    # Reason and predicate of what can't be used; the first kind lies in no window.
    timeless: tuple[tuple[str, str], ...]
    windowed: tuple[tuple[str, str], ...]
    payload: str
    encoding: Literal["text", "base64"]

    def of_range(self, start: datetime, end: datetime, bulk_format: BulkFormat) -> str:
        """The usable events of a half-open range of instants."""
        query = f"{self.select[bulk_format]} where {self._between(start, end)}"
        if not self.windowed:
            return query
        unusable = " or ".join(predicate for _, predicate in self.windowed)
        # set_config returns the text that it sets: never null, so the event is left out.
        marked = f"set_config('{LEFT_OUT}', 'yes', true) is null"
        return f"{query} and case when {unusable} then {marked} else true end"

    def unusable(self, start: datetime, end: datetime, *, in_range: bool) -> str:
        """Payload and reason of each event that can't be used: of no time at all, or `in_range`."""
        found, places = list(self.timeless), [predicate for _, predicate in self.timeless]
        if in_range:
            found += self.windowed
            unusable = " or ".join(predicate for _, predicate in self.windowed)
            places.append(f"({self._between(start, end)} and ({unusable}))")
        reasons = " ".join(f"when {predicate} then '{reason}'" for reason, predicate in found)
        return (
            f"select {self.payload} as payload, case {reasons} end as reason"
            f" from telemetry_events as t where {' or '.join(places)}"
        )

    def _between(self, start: datetime, end: datetime) -> str:
        # Literals of the column's own type: an index on it can serve.
        low, high = (f"{self.instant} '{_literal(bound)}'" for bound in (start, end))
        return f"event_ts >= {low} and event_ts < {high}"


class TelemetryDatabase:
    """A read-only snapshot of the source's table: every day of a load is read from the same instant.

    asyncpg gives whole network chunks of a COPY, where libpq gives a row at a time; its loop runs
    just while a chunk is waited for.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: asyncpg.Connection, queries: EventQueries
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._queries = queries

    def events(self, day: date, zone: ZoneInfo, bulk_format: BulkFormat) -> Iterator[bytes]:
        """The bytes of one business day's usable events, a few chunks ahead of the reader."""
        bounds = day_start(day, zone), day_start(day + DAY, zone)
        query = self._queries.of_range(*bounds, bulk_format)
        chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(maxsize=CHUNKS_AHEAD)

        async def pump() -> None:
            try:
                await self._connection.copy_from_query(
                    query, output=chunks.put, format=FORMATS[bulk_format]
                )
                await chunks.put(None)
            except Exception as error:  # handed over to the reader, who raises it
                await chunks.put(error)

        task = self._loop.create_task(pump())
        try:
            while (chunk := self._loop.run_until_complete(chunks.get())) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            task.cancel()

    def unusable(self, window: Window, zone: ZoneInfo) -> Iterator[Quarantined]:
        """The events of no time at all, and those of the window, that can't be used.

        To be asked after the days' events have been read, which tell whether there are any."""
        bounds = day_start(window.start, zone), day_start(window.end, zone)
        run = self._loop.run_until_complete
        marked = run(self._connection.fetchval(f"select current_setting('{LEFT_OUT}', true)"))
        query = self._queries.unusable(*bounds, in_range=marked == "yes")
        cursor = run(_opened(self._connection, query))
        while rows := run(cursor.fetch(ROWS_AT_ONCE)):
            for row in rows:
                yield Quarantined(
                    "telemetry_events", row["payload"], row["reason"], self._queries.encoding
                )


@contextmanager
def telemetry_database(settings: TelemetrySettings) -> Iterator[TelemetryDatabase]:
    """Connect, look at the table, hold a snapshot.

    Raises SourceError when the database does not answer, has no such table, or a column that is
    needed is missing or has a type that can't be read.
    """
    loop = asyncio.new_event_loop()
    try:
        try:
            connection = loop.run_until_complete(_connect(settings))
        except ValueError:
            # The driver's message may show a piece of the url, which can be one of the password.
            raise UsageError(
                "settings: TELEMETRY_DB_URL: no url of the form"
                " postgresql://user:password@host:port/database,"
                " special characters of the password percent-encoded"
            ) from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SourceError(
                f"the telemetry database does not answer: {type(error).__name__}: {error}"
            ) from None
        try:
            snapshot = connection.transaction(isolation="repeatable_read", readonly=True)
            loop.run_until_complete(snapshot.start())
            queries = event_queries(
                loop.run_until_complete(_columns(connection)),
                validates=connection.get_settings().server_encoding != "SQL_ASCII",
            )
            yield TelemetryDatabase(loop, connection, queries)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SourceError(
                f"the telemetry database failed: {type(error).__name__}: {error}"
            ) from None
        finally:
            loop.run_until_complete(_closed(connection, asyncio.all_tasks(loop)))
    finally:
        loop.close()


def event_queries(columns: Mapping[str, str], *, validates: bool = True) -> EventQueries:
    """The statements for a table with these columns (name to type, as format_type() writes it).

    `validates` is False for a server that does not check the encoding of its texts.

    Raises SourceError that names what is missing or of a wrong type.
    """
    if not columns:
        raise SourceError("the telemetry database has no table telemetry_events that we can see")
    missing = [c.name for c in EVENTS.columns if c.name not in columns and c.name not in OPTIONAL]
    if missing:
        raise SourceError(
            f"telemetry_events has no {', '.join(missing)}; it has {', '.join(sorted(columns))}"
        )
    instant = _base(columns["event_ts"])
    if instant not in ("timestamp with time zone", "timestamp without time zone"):
        raise SourceError(f"telemetry_events.event_ts is {columns['event_ts']}, no timestamp")
    duration = _base(columns["duration_ms"])
    if duration not in ("smallint", "integer", "bigint", "real", "double precision", "numeric"):
        raise SourceError(f"telemetry_events.duration_ms is {columns['duration_ms']}, no number")

    texts = [c.name for c in EVENTS.columns if c.kind is Kind.TEXT and c.name in columns]
    selected = {name: f"{name}::text" for name in texts}
    selected["duration_ms"] = "duration_ms::double precision"
    # In binary an instant, in text one without an offset, which is UTC.
    shifted = "event_ts at time zone 'UTC'"
    naive = instant == "timestamp without time zone"
    instants: Mapping[BulkFormat, str] = {
        "pgcopy": shifted if naive else "event_ts",
        "tsv": "event_ts" if naive else shifted,
    }

    windowed = []
    if duration in ("real", "double precision"):
        windowed.append(("duration_ms is not finite", NOT_FINITE))
    if duration == "numeric":
        windowed.append(("duration_ms is beyond a double", BEYOND_DOUBLE))
    if not validates:
        valid = " and ".join(
            f"coalesce(encode(convert_to({name}::text, 'SQL_ASCII'), 'hex') ~ '{UTF8_HEX}', true)"
            for name in texts
        )
        windowed.append(("text is not UTF-8", f"not ({valid})"))
    return EventQueries(
        select={
            bulk_format: "select "
            + ", ".join(
                {**selected, "event_ts": event_ts}.get(c.name, "null::text") for c in EVENTS.columns
            )
            + " from telemetry_events"
            for bulk_format, event_ts in instants.items()
        },
        instant=instant,
        timeless=(
            ("event_ts is null", "event_ts is null"),
            ("event_ts is infinite", f"event_ts in ({instant} 'infinity', {instant} '-infinity')"),
            (
                "event_ts is in no window: before the year 1 or after 9999",
                f"(event_ts > '-infinity' and event_ts < {instant} '0001-01-01 00:00:00+00'"
                f" or event_ts >= {instant} '10000-01-01 00:00:00+00' and event_ts < 'infinity')",
            ),
        ),
        windowed=tuple((reason, f"({predicate}) is true") for reason, predicate in windowed),
        payload="row_to_json(t)::text"
        if validates
        else "translate(encode(convert_to(t::text, 'SQL_ASCII'), 'base64'), e'\\n', '')",
        encoding="text" if validates else "base64",
    )


def land(load: Load, request: Request) -> LoadRecord:
    """Replace the days of the window and of the look-back before it.

    A day changes when its rows differ from what was landed last: the days whose late events
    arrived are found, the others stay built.

    Raises SourceError as telemetry_database does.
    """
    assert request.window is not None
    settings = read_settings(TelemetrySettings)
    window = request.window.extended_back(settings.lookback_days)
    started_at = datetime.now(UTC)
    before = landed_days(load.loads())
    landed: dict[date, LandedDay] = {}
    with telemetry_database(settings) as database:
        for day in window:
            stream = database.events(day, request.zone, load.bulk_format)
            landed[day] = load.replace_day(EVENTS, day, stream, before.get(day))
            log.info("telemetry %s: %d rows", day, landed[day].rows)
        quarantined = load.quarantine(database.unusable(window, request.zone))
    return LoadRecord(
        source=SOURCE.name,
        window=window,
        rows_landed=sum(day.rows for day in landed.values()),
        rows_quarantined=quarantined,
        changed=DayRanges.of_days(
            day for day, now in landed.items() if _differs(before.get(day), now)
        ),
        days=landed,
        started_at=started_at,
    )


def _differs(before: LandedDay | None, now: LandedDay) -> bool:
    if before is None:
        return now.rows > 0
    return before != now


async def _connect(settings: TelemetrySettings) -> asyncpg.Connection:
    return await asyncpg.connect(
        dsn=settings.db_url.get_secret_value(),
        timeout=10,
        server_settings={
            "application_name": "vitrina ingestion",
            "timezone": "UTC",
            # Text says all of a value, and says it in one way.
            "datestyle": "ISO",
            "extra_float_digits": "1",
            # The same rows in the same order: else their digest differs, and they are compared.
            "synchronize_seqscans": "off",
        },
    )


async def _opened(connection: asyncpg.Connection, query: str) -> Cursor:
    return await connection.cursor(query)


async def _closed(connection: asyncpg.Connection, tasks: Iterable[asyncio.Task[None]]) -> None:
    """Stop a COPY that was left in the middle, also at the source, and hang up."""
    pending = list(tasks)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    try:
        await connection.close(timeout=CLOSING_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def _columns(connection: asyncpg.Connection) -> dict[str, str]:
    rows = await connection.fetch(
        "select attname, format_type(case when typtype = 'd' then typbasetype else t.oid end,"
        " null) as type"
        " from pg_attribute as a join pg_type as t on t.oid = a.atttypid"
        " where attrelid = to_regclass('telemetry_events') and attnum > 0 and not attisdropped"
    )
    return {row["attname"]: row["type"] for row in rows}


def _base(type_name: str) -> str:
    return type_name.partition("(")[0].strip()


def _literal(bound: datetime) -> str:
    # A naive column is UTC by contract, and its literal drops the offset.
    return bound.isoformat(sep=" ")


SOURCE = Source(name="telemetry", domain="telemetry", tables=(EVENTS,), land=land, by_window=True)
