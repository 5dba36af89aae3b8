"""Feed actions and messages of a social app, from its ClickHouse.

Data flow: feed_actions, message_actions, by ranges of time -> raw tables of these names, by
business days. Contract: SPEC.md section 3. The source's server writes the lines that the warehouse
reads, a day at a time. Where the tables are in the warehouse's own server nothing is copied: dbt
reads them there, and only the ledger learns what each day holds (docs/decisions/0010-activity.md).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from ingestion.days import DAY, DayRanges, Window, day_start
from ingestion.errors import SourceError, UsageError
from ingestion.ledger import LandedDay, LoadRecord, landed_days
from ingestion.settings import ClickhouseSettings, HttpSettings, Settings, read_settings, target_of
from ingestion.sinks import Load, Quarantined
from ingestion.sources import Request, Source
from ingestion.tables import Column, DayTable, Kind

if TYPE_CHECKING:
    from ingestion.clickhouse_source import ClickHouse

log = logging.getLogger(__name__)

ATTRIBUTES = (
    Column("gender", Kind.BIGINT),
    Column("age", Kind.BIGINT),
    Column("country", Kind.TEXT),
    Column("city", Kind.TEXT),
    Column("os", Kind.TEXT),
    Column("source", Kind.TEXT),
    Column("exp_group", Kind.TEXT),
)
ACTIONS = DayTable(
    name="feed_actions",
    columns=(
        Column("user_id", Kind.BIGINT, nullable=False),
        Column("post_id", Kind.TEXT),
        Column("action", Kind.TEXT, nullable=False),
        Column("time", Kind.INSTANT, nullable=False),
        *ATTRIBUTES,
    ),
    comment="Views and likes in the feed as the source holds them, a partition a business day.",
)
# One of the two at least: the source's tables misspell it, or don't, or have both.
RECEIVERS = ("reciever_id", "receiver_id")
MESSAGES = DayTable(
    name="message_actions",
    columns=(
        Column("user_id", Kind.BIGINT, nullable=False),
        *(Column(name, Kind.BIGINT) for name in RECEIVERS),
        Column("time", Kind.INSTANT, nullable=False),
        *ATTRIBUTES,
    ),
    comment="Messages as the source holds them, with their senders' attributes, a partition a"
    " business day.",
)
TABLES = {table.name: table for table in (ACTIONS, MESSAGES)}

# A lenient parser finds an instant in nearly everything: only what is written like one.
INSTANT = (
    r"^\\d{4}-\\d{2}-\\d{2}([T ]\\d{2}:\\d{2}(:\\d{2}([.]\\d{1,9})?)?"
    r"\\s?(Z|[+-]\\d{2}(:?\\d{2})?)?)?$"
)
NOT_TEXT = "text has a U+0000 or is not UTF-8"
WRAPPERS = re.compile(r"^(?:Nullable|LowCardinality)\((.*)\)$")


class FeedSettings(Settings):
    """`FEED_CLICKHOUSE_URL`, or `FEED_CLICKHOUSE_DB` for tables in the warehouse's own server;
    `FEED_ACTIONS_TABLE` and `FEED_MESSAGES_TABLE` where they have other names than ours."""

    model_config = SettingsConfigDict(env_prefix="FEED_")

    clickhouse_url: SecretStr | None = None
    clickhouse_db: str | None = None
    actions_table: str = ACTIONS.name
    messages_table: str = MESSAGES.name


@dataclass(frozen=True)
class FeedQueries:
    """The statements that read one source table, made for its columns' types."""

    table: str
    columns: str
    instant: str
    is_text: bool
    usable: str
    # Reason and predicate of what can't be used; the first kind lies in no window.
    timeless: tuple[tuple[str, str], ...]
    windowed: tuple[tuple[str, str], ...]
    # A row whose texts are none would break the answer: it comes in base64, whatever its reason.
    not_text: str
    payload: str

    def of_range(self, start: datetime, end: datetime) -> str:
        """The usable rows of a half-open range of instants."""
        return (
            f"select {self.columns} from `{self.table}`"
            f" where {self._between(start, end)} and {self.usable}"
        )

    def digest_of_range(self, start: datetime, end: datetime) -> str:
        """How many they are, and what differs where they do, in whatever order."""
        return (
            "select count(), hex(sum(sipHash64(formatRowNoNewline('TabSeparated', *)))) from"
            f" ({self.of_range(start, end)})"
        )

    def unusable(self, start: datetime, end: datetime) -> str:
        """Payload, reason and encoding of each row that can't be used: of the range, or of no time."""
        parts = [self._rejected(reason, found) for reason, found in self.timeless]
        rest = self._between(start, end)
        for reason, found in self.windowed:
            parts.append(self._rejected(reason, f"{rest} and {found}"))
            rest += f" and not {found}"
        return " union all ".join(parts)

    def _rejected(self, reason: str, found: str) -> str:
        return (
            f"select if({self.not_text}, base64Encode({self.payload}), {self.payload}) as payload,"
            f" '{reason}' as reason, if({self.not_text}, 'base64', 'text') as encoding"
            f" from `{self.table}` where {found}"
        )

    def _between(self, start: datetime, end: datetime) -> str:
        # On the column itself where it is an instant: the table's order can serve.
        at = self.instant if self.is_text else "time"
        return f"({at} >= {_literal(start)} and {at} < {_literal(end)})"


class Feed:
    """One table of the source."""

    def __init__(self, server: ClickHouse, queries: FeedQueries) -> None:
        self._server = server
        self._queries = queries

    def rows(self, day: date, zone: ZoneInfo) -> Iterator[bytes]:
        """The lines of one business day's usable rows, as `tsv`."""
        query = self._queries.of_range(day_start(day, zone), day_start(day + DAY, zone))
        return self._server.stream(query, "TabSeparated")

    def landed(self, day: date, zone: ZoneInfo) -> LandedDay:
        """What one business day holds where it is."""
        query = self._queries.digest_of_range(day_start(day, zone), day_start(day + DAY, zone))
        ((count, digest),) = self._server.rows(query)
        return LandedDay(rows=int(str(count)), digest=str(digest))

    def unusable(self, window: Window, zone: ZoneInfo) -> Iterator[Quarantined]:
        """The rows of the window, and those of no time at all, that can't be used."""
        bounds = day_start(window.start, zone), day_start(window.end, zone)
        for payload, reason, encoding in self._server.rows(self._queries.unusable(*bounds)):
            how: Literal["text", "base64"] = "base64" if encoding == "base64" else "text"
            yield Quarantined(self._queries.table, str(payload), str(reason), how)


@contextmanager
def feed_table(settings: FeedSettings, table: DayTable) -> Iterator[Feed]:
    """Connect and look at the table.

    Raises SourceError when the server does not answer, has no such table, or a column that is
    needed is missing or can't be read; UsageError when the settings don't say where it is.
    """
    server = _server(settings)
    name = settings.actions_table if table is ACTIONS else settings.messages_table
    try:
        found = server.rows(
            "select name, type from system.columns where database = currentDatabase()"
            f" and table = '{_escaped(name)}'"
        )
        columns = {str(column): str(kind) for column, kind in found}
        yield Feed(server, feed_queries(table, columns, name))
    finally:
        server.close()


def feed_queries(
    table: DayTable, columns: Mapping[str, str], name: str | None = None
) -> FeedQueries:
    """The statements for a source table with these columns (name to type, as system.columns has it).

    Raises SourceError that names what is missing or of a wrong type.
    """
    name = name or table.name
    if not columns:
        raise SourceError(f"the feed's ClickHouse has no table {name} that we can see")
    _check_columns(table, columns, name)
    is_text = _base(columns["time"]) == "String"
    instant = "toDateTime64(time, 6, 'UTC')"
    timeless = [("time is null", "isNull(time)")]
    if is_text:
        parsed = "parseDateTime64BestEffortOrNull(assumeNotNull(time), 6, 'UTC')"
        instant = f"if(match(ifNull(time, ''), '{INSTANT}'), {parsed}, null)"
        timeless.append(("time is no instant", f"(isNotNull(time) and isNull({instant}))"))
    selected = {c.name: _expression(c, c.name in columns) for c in table.columns}
    selected["time"] = instant
    not_text = _not_text(columns)
    windowed = (*_unusable(table, columns), (NOT_TEXT, not_text))
    return FeedQueries(
        table=name,
        columns=", ".join(selected[c.name] for c in table.columns),
        instant=instant,
        is_text=is_text,
        usable=" and ".join(["1", *(f"not {found}" for _, found in windowed)]),
        timeless=tuple(timeless),
        windowed=windowed,
        not_text=not_text,
        payload="formatRowNoNewline('JSONEachRow', " + ", ".join(f"`{c}`" for c in columns) + ")",
    )


def land(load: Load, request: Request) -> LoadRecord:
    """Replace the window's days of one table.

    A day that differs from what was landed last changes every later one too: a user's attributes
    are the last known ones, and rarely does each user of a day come back with all of them.

    Raises SourceError as feed_table does.
    """
    assert request.window is not None
    settings, table = read_settings(FeedSettings), TABLES[request.part]
    started_at = datetime.now(UTC)
    before = landed_days(load.loads())
    landed: dict[date, LandedDay] = {}
    with feed_table(settings, table) as feed:
        for day in request.window:
            if settings.clickhouse_url is None:
                landed[day] = feed.landed(day, request.zone)
            else:
                stream = feed.rows(day, request.zone)
                landed[day] = load.replace_day(table, day, stream, before.get(day), "tsv")
            log.info("%s %s: %d rows", table.name, day, landed[day].rows)
        quarantined = load.quarantine(feed.unusable(request.window, request.zone))
    return LoadRecord(
        source=request.part,
        window=request.window,
        rows_landed=sum(day.rows for day in landed.values()),
        rows_quarantined=quarantined,
        changed=DayRanges.merged(
            (day, None) for day, now in landed.items() if _differs(before.get(day), now)
        ),
        days=landed,
        started_at=started_at,
    )


def _differs(before: LandedDay | None, now: LandedDay) -> bool:
    if before is None or not before.rows:
        return now.rows > 0
    return before != now


def _server(settings: FeedSettings) -> ClickHouse:
    """Where the tables are. Raises UsageError when nothing says so."""
    # Here, as every command imports this module: the HTTP stack is 8 MB and a tenth of a start.
    from ingestion.clickhouse_source import Address, ClickHouse, read_address

    name, http = "the feed's ClickHouse", read_settings(HttpSettings)
    url, database = settings.clickhouse_url, settings.clickhouse_db
    if url is not None and database is None:
        return ClickHouse(name, read_address("FEED_CLICKHOUSE_URL", url), http)
    if url is not None:
        raise UsageError(
            "settings: FEED_CLICKHOUSE_URL names another server, FEED_CLICKHOUSE_DB a database of"
            " the warehouse: the tables are in one of them"
        )
    if database is None:
        raise UsageError("settings: FEED_CLICKHOUSE_URL: Field required")
    if target_of(SOURCE.domain) != "clickhouse":
        raise UsageError(
            "settings: FEED_CLICKHOUSE_DB is a database of the warehouse, which is no ClickHouse:"
            " give FEED_CLICKHOUSE_URL"
        )
    own = read_settings(ClickhouseSettings)
    address = Address(own.host, own.port, own.user, own.password, database)
    return ClickHouse(name, address, http)


def _check_columns(table: DayTable, columns: Mapping[str, str], name: str) -> None:
    needed = [c.name for c in table.columns if c.name not in RECEIVERS]
    missing = [column for column in needed if column not in columns]
    if table is MESSAGES and not any(column in columns for column in RECEIVERS):
        missing.append(" or ".join(RECEIVERS))
    if missing:
        raise SourceError(
            f"{name} has no {', '.join(missing)}; it has {', '.join(sorted(columns))}"
        )
    instant = _base(columns["time"])
    if not instant.startswith("DateTime") and instant != "String":
        raise SourceError(f"{name}.time is {columns['time']}, neither an instant nor text")


def _unusable(table: DayTable, columns: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Reason and predicate, never null, of what lies in a window and can't be used."""
    found = [("user_id is null", "isNull(user_id)")]
    if table is ACTIONS:
        known = "ifNull(toString(action), '') in ('view', 'like')"
        found.append(("action is neither view nor like", f"(not {known})"))
    for column in table.columns:
        if column.kind is Kind.BIGINT and column.name in columns:
            empty = "" if not column.nullable else f" and toString({column.name}) != ''"
            unread = f"isNotNull({column.name}){empty} and isNull({_expression(column, True)})"
            found.append((f"{column.name} is no bigint", f"ifNull({unread}, 0)"))
    return tuple(found)


def _not_text(columns: Mapping[str, str]) -> str:
    """Predicate, never null: some text is none that every engine can hold."""
    bad = (
        f"ifNull(not isValidUTF8(toString({name})) or position(toString({name}), '\\0') > 0, 0)"
        for name, kind in columns.items()
        if _base(kind).startswith(("String", "FixedString", "Enum"))
    )
    return f"({' or '.join(['0', *bad])})"


def _expression(column: Column, is_there: bool) -> str:
    if not is_there:
        return "cast(null as Nullable(String))"
    if column.kind is Kind.BIGINT:
        return f"accurateCastOrNull({column.name}, 'Int64')"
    return f"toString({column.name})"


def _base(type_name: str) -> str:
    while wrapped := WRAPPERS.match(type_name):
        type_name = wrapped[1]
    return type_name


def _literal(bound: datetime) -> str:
    # Finer than any second, also for a column of whole ones: against a DateTime ClickHouse prunes what
    # begins within the second before the bound, rows of a DateTime64 column with it.
    return f"toDateTime64('{bound.astimezone(UTC):%Y-%m-%d %H:%M:%S}', 6, 'UTC')"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


SOURCE = Source(
    name="feed",
    domain="activity",
    tables=(ACTIONS, MESSAGES),
    land=land,
    by_window=True,
    parts=tuple(TABLES),
)
