"""Landing a day of telemetry from PostgreSQL into ClickHouse: Vitrina and its peers, on one server."""

from __future__ import annotations

import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from bench.landing import (
    COLUMNS,
    DAY,
    OURS,
    SETTINGS,
    Results,
    bars,
    compared,
    loading_seconds,
)
from bench.measure import Measured, measured
from bench.report import Section
from sandbox.clickhouse import ClickhouseServer
from sandbox.outside import Outside
from sandbox.postgres import tools

CEILING = "psql to curl"
CONNECT = "clickhouse-connect insert_df"
TABLES = {OURS: "raw.telemetry_events", CEILING: "bench.curl_events", CONNECT: "bench.df_events"}
DEFINITION = (
    "(event_id Nullable(String), client_id Nullable(String), event_type Nullable(String),"
    " duration_ms Nullable(Float64), status Nullable(String), session_id Nullable(String),"
    " event_ts DateTime64(6, 'UTC')) engine = MergeTree order by event_ts"
)


def create_tables(server: ClickhouseServer) -> None:
    """Tables for those that make none."""
    server.ask("create database if not exists bench")
    for tool in (CEILING, CONNECT):
        server.ask(f"create or replace table {TABLES[tool]} {DEFINITION}")


def compare(
    world: Outside,
    server: ClickhouseServer,
    peers: Path,
    rows: int,
    rounds: int,
    say: Callable[[str], None],
) -> Results:
    """Run each tool once a round, one after the other, and count what it landed."""
    results = Results(rows, shares={})
    environment = {
        **world.environment(),
        **server.environment(),
        **SETTINGS,
        "VITRINA_TARGET": "clickhouse",
    }
    for number in range(rounds):
        for tool, command in commands(world, server, peers, rows).items():
            if tool != OURS:
                server.ask(f"truncate table {TABLES[tool]}")
            run = measured(command, environment)
            results.add(tool, run, _loading_seconds(tool, run))
            say(f"round {number + 1}: {tool} {run.seconds:.2f} s, {run.peak_mb:.0f} MB")
            found = int(server.ask(f"select count() from {TABLES[tool]}"))
            if found != rows:
                raise RuntimeError(f"{tool} landed {found} rows, not {rows}")
    return results


def section(results: Results) -> Section:
    """What the page says of it."""
    return Section(
        f"Landing {results.rows:,} telemetry rows from PostgreSQL into ClickHouse",
        [
            "The server is the sandbox's, ClickHouse's engine behind Python's HTTP server: the"
            " same for all. `psql to curl`, a text COPY piped into one insert, is the ceiling.",
            *compared(results, CEILING),
            "Vitrina also writes the day aside, digests its rows, swaps the partition and writes"
            " the ledger. clickhouse-driver, and dlt, whose destination uses it, speak the native"
            " protocol only, which the sandbox has not: they are left out.",
        ],
        bars(results),
    )


def commands(
    world: Outside, server: ClickhouseServer, peers: Path, rows: int
) -> dict[str, list[str]]:
    """The command of each tool, its documented way."""
    source = world.telemetry_url
    query = urllib.parse.urlencode(
        {
            "query": f"insert into {TABLES[CEILING]} format TabSeparated",
            "precise_float_parsing": "1",
        }
    )
    columns = COLUMNS.replace("event_ts", "event_ts at time zone 'UTC'")
    pipe = (
        f"'{tools() / 'psql'}' -qd '{source}' -c \"copy (select {columns} from telemetry_events)"
        ' to stdout" | curl --silent --show-error --fail-with-body --user "$CLICKHOUSE_USER:'
        '$CLICKHOUSE_PASSWORD" --upload-file - --request POST'
        f" 'http://{server.host}:{server.port}/?{query}'"
    )
    user, password = (urllib.parse.quote(part, safe="") for part in (server.user, server.password))
    return {
        OURS: [sys.executable, "-m", "ingestion", "telemetry", "--date", str(DAY)],
        CEILING: ["bash", "-c", f"set -o pipefail; {pipe}"],
        CONNECT: [
            str(peers / "bin" / "python"),
            str(Path(__file__).parent / "peers.py"),
            "clickhouse-connect",
            source,
            f"http://{user}:{password}@{server.host}:{server.port}",
            TABLES[CONNECT],
            str(rows),
        ],
    }


def _loading_seconds(tool: str, run: Measured) -> float:
    # It prints its seconds, as the other peers that are libraries do.
    return loading_seconds("pandas" if tool == CONNECT else tool, run)
