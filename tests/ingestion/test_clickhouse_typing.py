"""Texts of delivered files: ClickHouse's typing takes what PostgreSQL's takes, and makes the same of it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql

from ingestion.clickhouse_http import Clickhouse
from ingestion.sinks._clickhouse_typing import cells_of, reason_of, values_of
from ingestion.sinks._postgres_files import _reason
from ingestion.tables import Field, FileTable, Kind
from sandbox.clickhouse import ClickhouseServer
from sandbox.postgres import PostgresServer

FIELDS = (
    Field("at", Kind.INSTANT),
    Field("amount", Kind.MONEY, minimum=0),
    Field("quantity", Kind.QUANTITY),
)
TABLE = FileTable("typed", FIELDS, registry="none", comment="", dated_by="at")
ZONES = ("Europe/Moscow", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
# Clocks go on and back in these hours, somewhere.
CLOCKS = [
    f"{day} {hour:02d}:{minute}:00"
    for day in ("2024-03-10", "2024-11-03", "2024-04-07", "2024-10-06", "2011-03-27", "2014-10-26")
    for hour in range(4)
    for minute in ("00", "15", "30", "59")
]
INSTANTS = [
    *CLOCKS,
    *("2024-12-05", "2024-12-05T12:00", "2024-12-05 12:00:00.5", "2024-12-05T12:00:00.123456Z"),
    *("2024-12-05T23:59:59+03", "2024-12-05T00:00:00-1130", "2024-12-05T00:00:00+05:45"),
    *("2024-12-05T24:00:00", "2024-12-05T24:00:01", "2024-12-05T12:00:60", "2024-12-05T12:60:00"),
    *("2024-02-29", "2023-02-29", "2024-02-30", "2024-13-01", "2024-00-01", "2024-01-00"),
    *("0000-01-01", "0001-01-02", "1850-06-01T12:00:00", "1917-07-01", "9998-12-31T23:59:59"),
    *("yesterday", "now", "infinity", "02/03/2024", "20241205", "2024-12-05T12:00:00.1234567"),
    *("2024-12-05T12:00:00 Z", " 2024-12-05", "2024-12-05\n", "epoch", "2024-12-05T25:00", "x"),
    *("2024-12-05T12:00:00+15:59", "2024-12-05T12:00:00+16:00", "2024-12-05T12:00:00+03:60"),
    *("2024-12-05 12:00:00 Europe/Moscow", "2024-12-05T12", "1733400000", "２024-12-05"),
]
NUMBERS = [
    *("0", "-0", "-0.0", "7", "+1.5", " 3 ", "  -4", "1e2", "1E+2", "1e-2", ".5", "5.", "0.005"),
    *("0.0049999999999999999999999999999999999999999999999999", "2.345", "-2.345", "1.0005"),
    *("0.00500000000000000000000000000000000000000000000000001", "-0.001", "-0.0000000000001"),
    *("9999999999999999.99", "9999999999999999.994", "9999999999999999.995", "1e16", "1e15"),
    *("999999999999999.999", "999999999999999.9995", "-1e16", "1e50", "-1e50", "1e-60", "-1e-60"),
    *("NaN", "Infinity", "-Infinity", "inf", "0x1F", "1_000", "1,5", "1 000", "--1", "+-1", "1e"),
    *("0e99", "-0.0E-99", "0e+0099 ", "0e999", "0e1000", "1e-99", "1e-999", "1e-1000", "1e-99999"),
    *("1e999", "1e1000", "1e007", "0e"),
    *("e5", ".", "+", "-", "", "١", "1\n", "1\t", "\u00a01", "1.2.3", "1e5.5", "00012", "1e+0002"),
]


@pytest.fixture(scope="module")
def client(clickhouse: ClickhouseServer) -> Clickhouse:
    """A client as the sink has one."""
    found = Clickhouse(clickhouse.host, clickhouse.port, clickhouse.user, clickhouse.password)
    return found.connected()


def texts(*rows: Sequence[str | None]) -> list[tuple[str | None, ...]]:
    return [tuple(row) for row in rows]


def by_postgres(
    server: PostgresServer, rows: list[tuple[str | None, ...]], zone: str
) -> list[tuple[object, ...]]:
    """Reason, and if there is none the instant, the day, the amount and the quantity."""
    with psycopg.connect(server.url("postgres")) as connection:
        connection.execute(sql.SQL("set timezone to {}").format(sql.Literal(zone)))
        connection.execute(
            "create temp table delivered (no int, _reason text, at text, amount text, quantity text)"
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into delivered values (%s, null, nullif(%s, ''), nullif(%s, ''), nullif(%s, ''))",
                [(n, *row) for n, row in enumerate(rows)],
            )
        found = connection.execute(
            sql.SQL(
                "select no, {reason} as reason, case when {reason} is null then"
                " to_char(at::timestamptz at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') end,"
                " case when {reason} is null then (at::timestamptz at time zone {zone})::date::text"
                " end, case when {reason} is null then amount::numeric(18,2) end,"
                " case when {reason} is null then quantity::numeric(18,3) end"
                " from delivered order by no"
            ).format(reason=_reason(FIELDS), zone=sql.Literal(zone))
        )
        return [tuple(row[1:]) for row in found]


def by_clickhouse(
    client: Clickhouse, rows: list[tuple[str | None, ...]], zone: str
) -> list[tuple[object, ...]]:
    values = values_of(TABLE, ZoneInfo(zone))
    relation = (
        "(select toInt64(number) as no, cast(null as Nullable(String)) as _reason,"
        + ", ".join(
            f" {{{field.name}:Array(String)}}[number + 1] as {field.name}" for field in FIELDS
        )
        + f" from numbers({len(rows)}))"
    )
    query = (
        f"select {reason_of(FIELDS)} as reason, if(reason is null, toString({values['at']}), null),"
        f" if(reason is null, toString({values['ds']}), null),"
        f" if(reason is null, toDecimalString({values['amount']}, 2), null),"
        f" if(reason is null, toDecimalString({values['quantity']}, 3), null)"
        f" from {cells_of(FIELDS, relation, 'no', ZoneInfo(zone))} order by line"
    )
    columns = {field.name: [row[place] or "" for row in rows] for place, field in enumerate(FIELDS)}
    found = client.rows(query, **columns)
    return [
        (*row[:3], *(cell if cell is None else Decimal(cell) for cell in row[3:])) for row in found
    ]


@pytest.mark.parametrize("zone", ZONES)
def test_instants(server: PostgresServer, client: Clickhouse, zone: str) -> None:
    rows = texts(*((text, None, None) for text in INSTANTS))
    expected = by_postgres(server, rows, zone)
    assert list(zip(INSTANTS, by_clickhouse(client, rows, zone), strict=True)) == list(
        zip(INSTANTS, expected, strict=True)
    )
    usable = [text for text, row in zip(INSTANTS, expected, strict=True) if row[0] is None]
    assert len(usable) > len(CLOCKS)
    assert len(usable) < len(INSTANTS) - 15


def test_numbers(server: PostgresServer, client: Clickhouse) -> None:
    rows = texts(
        *((None, text, None) for text in NUMBERS), *((None, None, text) for text in NUMBERS)
    )
    expected = by_postgres(server, rows, "UTC")
    found = by_clickhouse(client, rows, "UTC")
    assert list(zip(rows, found, strict=True)) == list(zip(rows, expected, strict=True))
    reasons = {row[0] for row in expected}
    assert reasons >= {None, "amount is less than 0", "amount is no number", "amount is too great"}
