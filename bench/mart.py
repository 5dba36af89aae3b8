"""The telemetry models on PostgreSQL, for `bench.histories`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg

from bench.histories import LAST_DAY, Warehouse
from ingestion.cli import main as ingestion
from sandbox.dbt import environment
from sandbox.outside import outside
from sandbox.postgres import PostgresServer

MODELS = ("ods_telemetry", "dm_client_telemetry")
# The same day over and over: what differs between the histories is their length alone.
HISTORY = """
do $$
begin
    for n in 0 .. {days} - 1 loop
        execute format(
            'create table raw_days.telemetry_events_%s partition of raw.telemetry_events for values in (%L)',
            to_char(date '{last}' - n, 'YYYYMMDD'), date '{last}' - n
        );
        insert into raw.telemetry_events
        select
            date '{last}' - n, md5(i::text || n), 'client-' || i % 5000, 'call', exp(random() * 8),
            case when i % 50 = 0 then 'error' else 'ok' end, 'session-' || i / 10,
            (date '{last}' - n)::timestamp at time zone 'Europe/Moscow' + i * interval '1 day' / {rows}
        from generate_series(0, {rows} - 1) as i;
    end loop;
end
$$
"""


@contextmanager
def warehouses(
    server: PostgresServer, histories: Sequence[int], rows: int
) -> Iterator[list[Warehouse]]:
    """A database each, with so many days of so many events."""
    with ExitStack() as stack:
        yield [_filled(stack, server, days, rows) for days in histories]


def _filled(stack: ExitStack, server: PostgresServer, days: int, rows: int) -> Warehouse:
    world = stack.enter_context(outside(server, name=f"_{days}"))
    with environment(world.environment()):
        ingestion(["init"])
    with psycopg.connect(world.postgres.url(world.warehouse), autocommit=True) as connection:
        connection.execute(HISTORY.format(days=days, rows=rows, last=LAST_DAY).encode())
    return Warehouse(days, world.environment())
