"""`make bench`: measure, and write docs/benchmarks.md with its plot."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from bench import (
    activity,
    clickhouse,
    engines,
    histories,
    landing,
    mart,
    orchestration,
    orders,
    report,
)
from ingestion.cli import main as ingestion
from sandbox.clickhouse import clickhouse_server
from sandbox.dbt import environment
from sandbox.feed import feed_server
from sandbox.outside import outside
from sandbox.postgres import postgres_server
from sandbox.reports import Settings

ROOT = Path(__file__).resolve().parent.parent
HISTORIES = (1, 10, 100)
LINES_ON_BOTH = 1_000_000  # at most: all is built on two engines
# As on a server that was set up for it: with checkpoints that a load of this size does not meet, and
# no vacuum of what one tool has left while the next one is measured.
SERVER = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off"}


def main() -> int:
    """Run every part and write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="the peers' environment")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="events of the day that is landed"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--mart-rows", type=int, default=50_000, help="events of each day of history"
    )
    parser.add_argument("--order-lines", type=int, default=5_000_000, help="lines of the report")
    parser.add_argument("--order-rounds", type=int, default=3, help="these take minutes each")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure"
    )
    options = parser.parse_args()
    sections = [section for part in options.parts for section in PARTS[part](options)]
    machine = (
        f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GB, {platform.system()}"
    )
    page = report.page(sections, _command(options), machine, options.rounds)
    options.out.write_text(page, encoding="utf-8")
    _draw(options.peers, sections, options.out.with_suffix(".svg"))
    print(page)
    return 0


def _command(options: argparse.Namespace) -> str:
    """What a person types to make the page again."""
    words = ["make bench", f"ROUNDS={options.rounds}"]
    if options.parts != list(PARTS):
        words.append(f"PARTS='{' '.join(options.parts)}'")
    if "orders" in options.parts:
        words.append(f"LINES={options.order_lines}")
    return " ".join(words)


def _landing(options: argparse.Namespace) -> list[report.Section]:
    with (
        postgres_server(settings=SERVER) as server,
        outside(server, types={"duration_ms": "double precision"}) as world,
    ):
        with environment(world.environment()):
            ingestion(["init"])
        landing.fill(world, options.rows)
        done = landing.compare(world, options.peers, options.rows, options.rounds, _say)
    return [landing.section(done)]


def _clickhouse(options: argparse.Namespace) -> list[report.Section]:
    with (
        clickhouse_server() as server,
        postgres_server(settings=SERVER) as postgres,
        outside(postgres, types={"duration_ms": "double precision"}) as world,
    ):
        target = {**server.environment(), "VITRINA_TARGET": "clickhouse"}
        with environment({**world.environment(), **target}):
            ingestion(["init"])
        landing.fill(world, options.rows)
        clickhouse.create_tables(server)
        done = clickhouse.compare(world, server, options.peers, options.rows, options.rounds, _say)
    return [clickhouse.section(done)]


def _mart(options: argparse.Namespace) -> list[report.Section]:
    rows, rounds = options.mart_rows, options.rounds
    with (
        postgres_server(settings=SERVER) as server,
        mart.warehouses(server, HISTORIES, rows) as made,
    ):
        done = histories.compare(made, mart.MODELS, rows, rounds, _say)
    return [histories.section(done, "the telemetry models on PostgreSQL")]


def _activity(options: argparse.Namespace) -> list[report.Section]:
    rows, rounds = options.mart_rows, options.rounds
    with activity.warehouses(HISTORIES, rows) as made:
        done = histories.compare(made, activity.MODELS, rows, rounds, _say)
    note = (
        "The day is landed again before each build. The versions of the users' attributes are rewritten,"
        " which grows with users."
    )
    return [histories.section(done, "the activity models on ClickHouse", note)]


def _engines(options: argparse.Namespace) -> list[report.Section]:
    rounds = min(options.order_rounds, options.rounds)
    lines = min(options.order_lines, LINES_ON_BOTH)
    with (
        postgres_server(settings=SERVER) as postgres,
        outside(
            postgres,
            types={"duration_ms": "double precision"},
            reports_settings=Settings(running_looks=0),
        ) as world,
        clickhouse_server() as server,
        feed_server(server) as feed,
    ):
        engines.fill(world, feed, options.rows, lines)
        done = engines.compare(world, server, feed, options.rows, lines, rounds, _say)
    return [engines.section(done)]


def _orders(options: argparse.Namespace) -> list[report.Section]:
    """Landing, and retention on what was landed."""
    lines, rounds = options.order_lines, min(options.order_rounds, options.rounds)
    ready = Settings(running_looks=0)  # what is measured is not the waiting for a report
    with (
        postgres_server(settings=SERVER) as server,
        outside(server, reports_settings=ready) as world,
    ):
        content = orders.deliver(world, lines)
        with environment(world.environment()):
            ingestion(["init"])
        done = orders.compare(world, options.peers, content, lines, rounds, _say)
        built = orders.rebuild(world, rounds, _say)
    return [orders.landing_section(done), orders.retention_section(built)]


def _airflow(options: argparse.Namespace) -> list[report.Section]:
    return [orchestration.section(orchestration.compare(options.rounds, _say))]


PARTS = {
    "landing": _landing,
    "mart": _mart,
    "airflow": _airflow,
    "orders": _orders,
    "clickhouse": _clickhouse,
    "activity": _activity,
    "engines": _engines,
}


def _draw(peers: Path, sections: list[report.Section], path: Path) -> None:
    """By the peers' environment: nothing else here needs a plotting library."""
    with TemporaryDirectory() as folder:
        charts = Path(folder) / "charts.json"
        charts.write_text(json.dumps(report.charts(sections)), encoding="utf-8")
        program = Path(__file__).parent / "plot.py"
        subprocess.run([peers / "bin" / "python", program, charts, path], check=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
