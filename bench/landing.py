"""Landing a day of telemetry, from one PostgreSQL database to another: Vitrina and its peers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psycopg

from bench.measure import Measured, measured, middle
from bench.report import Bar, Section, table
from sandbox.outside import Outside
from sandbox.postgres import tools

DAY = date(2024, 12, 8)
COLUMNS = "event_id, client_id, event_type, duration_ms, status, session_id, event_ts"
# A business day of Moscow; ids as long as a UUID, sessions of ten events, long-tailed latencies.
EVENTS = """
insert into telemetry_events ({columns}, event_date)
select
    md5(i::text), 'client-' || i % 5000, (array['click', 'view', 'call'])[1 + i % 3],
    exp(random() * 8), case when i % 50 = 0 then 'error' else 'ok' end, 'session-' || i / 10,
    timestamptz '2024-12-07 21:00:00+00' + i * interval '1 day' / {rows}, date '2024-12-08'
from generate_series(0, {rows} - 1) as i
"""
CEILING = "psql | psql"
OURS = "vitrina"
# to_sql is so slow that it lands a tenth.
SHARES = {"pandas": 10}


@dataclass
class Results:
    """Runs by tool: each with the rows it landed and, where the tool says so, seconds of loading."""

    rows: int
    shares: Mapping[str, int] = field(default_factory=lambda: SHARES)
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    loading: dict[str, list[float]] = field(default_factory=dict)

    def rate(self, tool: str) -> float:
        """Rows a second of the whole command, the median run."""
        return self.rows_of(tool) / middle([run.seconds for run in self.runs[tool]])

    def loading_rate(self, tool: str) -> float:
        """Rows a second without the start of the interpreter, where it can be told apart."""
        return self.rows_of(tool) / middle(self.loading[tool])

    def peak_mb(self, tool: str) -> float:
        """The greatest peak of the runs."""
        return max(run.peak_mb for run in self.runs[tool])

    def rows_of(self, tool: str) -> int:
        """How many rows a tool lands: a slow one has a part of them."""
        return self.rows // self.shares.get(tool, 1)

    def add(self, tool: str, run: Measured, loading: float) -> None:
        """Note a run, and the seconds of it that loading took."""
        self.runs.setdefault(tool, []).append(run)
        self.loading.setdefault(tool, []).append(loading)


def fill(world: Outside, rows: int) -> None:
    """A day of events at the source; a table for psql, which makes none."""
    with psycopg.connect(world.telemetry_url, autocommit=True) as connection:
        connection.execute(EVENTS.format(columns=COLUMNS, rows=rows).encode())
        connection.execute("vacuum analyze telemetry_events")
    with psycopg.connect(world.postgres.url(world.warehouse)) as connection:
        connection.execute(
            "create table psql_events (event_id text, client_id text, event_type text,"
            " duration_ms double precision, status text, session_id text, event_ts timestamptz)"
        )


def compare(
    world: Outside, peers: Path, rows: int, rounds: int, say: Callable[[str], None]
) -> Results:
    """Run each tool once a round, one after the other, and count what it landed."""
    results = Results(rows)
    for number in range(rounds):
        for tool, command in commands(world, peers, rows).items():
            if tool in SHARES and number:
                continue
            settle(world)
            run = measured(command, {**world.environment(), **SETTINGS})
            results.add(tool, run, loading_seconds(tool, run))
            say(f"round {number + 1}: {tool} {run.seconds:.2f} s, {run.peak_mb:.0f} MB")
            _check(world, tool, results.rows_of(tool))
    return results


def settle(world: Outside) -> None:
    """Have the server write out what the last run has left: the next one should not wait for it."""
    with psycopg.connect(world.postgres.url(world.warehouse), autocommit=True) as connection:
        connection.execute("checkpoint")


def section(results: Results) -> Section:
    """What the page says of it."""
    return Section(
        f"Landing {results.rows:,} telemetry rows from one PostgreSQL database to another",
        [
            "`psql | psql`, a binary COPY piped through two clients, is the ceiling for bytes that go"
            " from server to server. *Loading* leaves out the start of a Python interpreter and its"
            " imports where the tool lets it be told apart; *command* is all of it.",
            *compared(results, CEILING),
            "Versions are those of `requirements/bench.txt`. Vitrina also makes the day's partition,"
            " digests its bytes, looks for events without a time, swaps the partition and writes the"
            " ledger; the ceiling does none of it.",
        ],
        bars(results),
    )


def compared(results: Results, ceiling: str) -> list[str]:
    """A table of all tools against the ceiling, and Vitrina over each peer in words."""
    tools = _by_rate(results)
    rows = []
    for tool in tools:
        name = f"**{tool}**" if tool == OURS else f"`{tool}`" if tool == ceiling else tool
        note = f" ({results.rows_of(tool):,} rows)" if tool in results.shares else ""
        loading, whole = results.loading_rate(tool), results.rate(tool)
        rows.append(
            [
                f"{name}{note}",
                f"{loading:,.0f}",
                f"{loading / results.loading_rate(ceiling):.2f}",
                f"{whole:,.0f}",
                f"{whole / results.rate(ceiling):.2f}",
                f"{results.peak_mb(tool):,.0f} MB",
            ]
        )
    against = ", ".join(
        f"{tool} {results.loading_rate(OURS) / results.loading_rate(tool):.1f}×"
        f" ({results.rate(OURS) / results.rate(tool):.1f}×)"
        for tool in tools
        if tool not in (OURS, ceiling)
    )
    header = [
        "tool",
        "loading, rows/s",
        "of the ceiling",
        "command, rows/s",
        "of it",
        "peak memory",
    ]
    return [table(header, rows), f"Vitrina over each peer, loading (whole command): {against}."]


def bars(results: Results) -> list[Bar]:
    """A bar a tool, the fastest first."""
    return [
        Bar(
            tool,
            results.loading_rate(tool),
            f"{results.loading_rate(tool) / 1000:,.0f} k rows/s",
            ours=tool == OURS,
        )
        for tool in _by_rate(results)
    ]


def _by_rate(results: Results) -> list[str]:
    return sorted(results.runs, key=results.loading_rate, reverse=True)


SETTINGS: Mapping[str, str] = {
    "TELEMETRY_LOOKBACK_DAYS": "0",
    "BUSINESS_TIMEZONE": "Europe/Moscow",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "SLING_DISABLE_TELEMETRY": "true",
    "INGESTR_DISABLE_TELEMETRY": "true",
}


def commands(world: Outside, peers: Path, rows: int) -> dict[str, list[str]]:
    """The command of each tool, its documented way."""
    source, target = world.telemetry_url, world.postgres.url(world.warehouse)
    psql = tools() / "psql"
    pipe = (
        f"'{psql}' -qd '{target}' -c 'truncate psql_events' && "
        f"'{psql}' -qd '{source}'"
        f" -c 'copy (select {COLUMNS} from telemetry_events) to stdout (format binary)' | "
        f"'{psql}' -qd '{target}' -c 'copy psql_events from stdin (format binary)'"
    )
    python, script = str(peers / "bin" / "python"), str(Path(__file__).parent / "peers.py")
    few = {tool: str(rows // share) for tool, share in SHARES.items()}
    return {
        OURS: [sys.executable, "-m", "ingestion", "telemetry", "--date", str(DAY)],
        CEILING: ["bash", "-c", f"set -o pipefail; {pipe}"],
        "ingestr": [
            str(peers / "bin" / "ingestr"),
            "ingest",
            "--yes",
            "--progress",
            "log",
            "--source-uri",
            source,
            "--source-table",
            "public.telemetry_events",
            "--dest-uri",
            target,
            "--dest-table",
            "public.ingestr_events",
        ],
        "sling": [
            sling(peers),
            "run",
            "--src-conn",
            f"{source}?sslmode=disable",
            "--src-stream",
            "public.telemetry_events",
            "--tgt-conn",
            f"{target}?sslmode=disable",
            "--tgt-object",
            "public.sling_events",
            "--mode",
            "full-refresh",
        ],
        "dlt": [python, script, "dlt", source, target, "dlt_events", str(rows)],
        "pandas": [python, script, "pandas", source, target, "pandas_events", few["pandas"]],
    }


def loading_seconds(tool: str, run: Measured) -> float:
    """The seconds of a run without the interpreter's start, where the tool says so."""
    if tool == OURS:
        return float(json.loads(run.output.splitlines()[-1])["seconds"])
    if tool in ("dlt", "pandas"):
        return float(run.output.splitlines()[-1])
    return run.seconds


def _check(world: Outside, tool: str, rows: int) -> None:
    """Each landed what it should: a fast tool that loses rows is no peer."""
    table = {OURS: "raw.telemetry_events", CEILING: "psql_events"}.get(tool, f"{tool}_events")
    with psycopg.connect(world.postgres.url(world.warehouse)) as connection:
        found = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    if found is None or found[0] != rows:
        raise RuntimeError(f"{tool} landed {found} rows, not {rows}")


def sling(peers: Path) -> str:
    """The binary that the wheel brings. Raises RuntimeError when it is not there."""
    found = sorted(peers.glob("lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64"))
    if not found:
        raise RuntimeError(f"no sling in {peers}: run make bench")
    if not os.access(found[0], os.X_OK):
        found[0].chmod(0o755)
    return str(found[0])
