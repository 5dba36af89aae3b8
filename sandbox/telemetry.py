"""The telemetry database: the table `telemetry_events` of the product's own PostgreSQL.

Data flow: events (`sandbox.world`, `sandbox.flights`) -> COPY -> telemetry_events
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, TypedDict

import psycopg
from psycopg import sql

TABLE = "telemetry_events"
COPY_ROWS = 5_000  # rows joined into one COPY message: 0.5 MB, where a row a message is 3x slower
_NULL = r"\N"
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class TelemetryEvent(TypedDict, total=False):
    """A row of the source. A missing key is a null."""

    event_id: str | None
    client_id: str | None
    event_type: str | None
    duration_ms: float | None  # latency in milliseconds
    status: str | None  # 'ok', 'error' and whatever else the product thinks of
    session_id: str | None
    event_ts: datetime | None  # an instant; naive means UTC
    event_date: date | None  # what the application server thought the day was: of no use


_TYPES: Mapping[str, str] = {
    "event_id": "text",
    "client_id": "text",
    "event_type": "text",
    "duration_ms": "integer",
    "status": "text",
    "session_id": "text",
    "event_ts": "timestamptz",
    "event_date": "date",
}


def create_source(
    url: str,
    *,
    event_id: bool = True,
    naive: bool = False,
    types: Mapping[str, str] | None = None,
    table: str = TABLE,
) -> None:
    """Make the empty table with its index on event_ts.

    `event_id=False` leaves that column out. `naive=True` makes event_ts a `timestamp` without zone
    that holds UTC. `types` gives columns other types than ours, or adds columns, as in
    {"event_id": "uuid", "duration_ms": "numeric"}.
    """
    columns = dict(_TYPES)
    if not event_id:
        del columns["event_id"]
    if naive:
        columns["event_ts"] = "timestamp"
    columns |= types or {}
    definitions = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(declared))
        for name, declared in columns.items()
    )
    create = sql.SQL("create table {} ({})").format(sql.Identifier(table), definitions)
    index = sql.SQL("create index on {} (event_ts)").format(sql.Identifier(table))
    with psycopg.connect(url) as connection:
        connection.execute(create)
        connection.execute(index)


def insert_events(url: str, events: Iterable[TelemetryEvent], *, table: str = TABLE) -> int:
    """Add events in one transaction and return how many.

    They go into those columns that the table has: a source without event_id takes the same events.
    """
    added = 0
    with psycopg.connect(url) as connection:
        columns = _columns(connection, table)
        lines = _lines(events, columns)
        copy_in = sql.SQL("copy {} ({}) from stdin").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
            while batch := list(islice(lines, COPY_ROWS)):
                copy.write("".join(batch))
                added += len(batch)
    return added


def _columns(connection: psycopg.Connection, table: str) -> dict[str, str]:
    """Return the event's columns that the table has, in its order, with their types' names."""
    rows = connection.execute(
        """
        select attname, typname
        from pg_attribute
        inner join pg_type on pg_type.oid = atttypid
        where attrelid = to_regclass(quote_ident(%s)) and attname = any(%s) and not attisdropped
        order by attnum
        """,
        [table, list(_TYPES)],
    )
    return dict(rows)


def _lines(events: Iterable[TelemetryEvent], columns: Mapping[str, str]) -> Iterator[str]:
    """Write each event as a line of COPY's text format."""
    writers = [(column, _writer(column, declared)) for column, declared in columns.items()]
    for event in events:
        get = event.get
        cells = [
            _NULL if (value := get(column)) is None else write(value) for column, write in writers
        ]
        yield "\t".join(cells) + "\n"


def _writer(column: str, declared: str) -> Callable[[Any], str]:
    """Return what turns a column's values into text."""
    if column == "event_ts":
        return _naive_instant if declared == "timestamp" else _instant
    return str if column in ("duration_ms", "event_date") else _text


def _text(value: str) -> str:
    # Nearly all values take the first way; translate is five times slower.
    if value.isprintable() and "\\" not in value:
        return value
    return value.translate(_ESCAPES)


def _instant(value: datetime) -> str:
    """Write an instant with its offset: the session's zone is not UTC."""
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()


def _naive_instant(value: datetime) -> str:
    """Write an instant as the UTC that a column without zone holds."""
    return (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat()
