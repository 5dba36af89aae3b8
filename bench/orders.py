"""Landing order lines from CSV files in S3, and rebuilding retention: Vitrina, its peers, the old way."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from bench.landing import OURS, Results, bars, compared, loading_seconds, settle, sling
from bench.measure import built, measured, middle
from bench.report import Bar, Section, table
from sandbox.dbt import Project
from sandbox.outside import Outside
from sandbox.postgres import tools
from sandbox.retail import retail_lines

CEILING = "psql \\copy"
# Lines of each ten weeks: sixty weeks hold five million, and a day has 17 thousand of them.
SPAN_LINES = 850_000
DAY = date(2011, 1, 19)  # whose week is rebuilt
# to_sql and ingestr are so slow that they land a part.
SHARES = {"pandas": 50, "ingestr": 10}
COLUMNS = (
    "id bigint, uniq_id text, date_time timestamp, city_id text, city_name text, customer_id text,"
    " item_id text, item_name text, quantity numeric(18, 3), payment_amount numeric(18, 2),"
    " status text"
)
SETTINGS: Mapping[str, str] = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "SLING_DISABLE_TELEMETRY": "true",
    "INGESTR_DISABLE_TELEMETRY": "true",
}
MART = "f_customer_retention"
# The shape of the view that the old pipelines had: a step each for weeks, orders, refunds, new and
# returning customers, joined on the week. Theirs also multiplied rows; this one does not.
OLD_VIEW = """
create view old_retention as
with weeks as (
    select distinct date_trunc('week', ds)::date as week from core.f_sales
),
orders as (
    select date_trunc('week', ds)::date as week, customer_id, count(*) as orders_cnt
    from core.f_sales where status = 'shipped' and customer_id is not null group by 1, 2
),
net as (
    select date_trunc('week', ds)::date as week, customer_id, sum(payment_amount) as revenue
    from core.f_sales where customer_id is not null group by 1, 2
),
refunds as (
    select date_trunc('week', ds)::date as week, count(distinct customer_id) as refunded_customers,
        count(*) as refunds_cnt
    from core.f_sales where status = 'refunded' and customer_id is not null group by 1
),
new_customers as (
    select orders.week, count(*) as customers_cnt, sum(net.revenue) as revenue
    from orders join net using (week, customer_id) where orders_cnt = 1 group by 1
),
returning_customers as (
    select orders.week, count(*) as customers_cnt, sum(net.revenue) as revenue
    from orders join net using (week, customer_id) where orders_cnt > 1 group by 1
)
select week as period_id,
    coalesce(n.customers_cnt, 0) as new_customers_count,
    coalesce(n.revenue, 0) as new_customers_revenue,
    coalesce(r.customers_cnt, 0) as returning_customers_count,
    coalesce(r.revenue, 0) as returning_customers_revenue,
    coalesce(refunded_customers, 0) as refunded_customer_count,
    coalesce(refunds_cnt, 0) as customers_refunded
from weeks
left join new_customers as n using (week)
left join returning_customers as r using (week)
left join refunds using (week)
"""
OUR_WEEKS = f"""
select period_id, new_customers_count, new_customers_revenue, returning_customers_count,
    returning_customers_revenue, refunded_customer_count, customers_refunded
from marts.{MART} where period_name = 'weekly'
"""
OLD, WEEK, WHOLE = "old view, all of it", "a week's rebuild", "the whole history's rebuild"


@dataclass
class Retention:
    """Seconds of each way, a value a round; `facts` is the number of rows that they are made of."""

    facts: int = 0
    weeks: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def of(self, way: str) -> float:
        """The median."""
        return middle(self.seconds[way])


def deliver(world: Outside, rows: int) -> bytes:
    """Let the report API have a report of so many real lines; returns the file."""
    delivery = retail_lines(rows, spans=-(-rows // SPAN_LINES))
    world.reports.deliver(delivery)
    with psycopg.connect(world.postgres.url(world.warehouse)) as connection:
        connection.execute(f"create table psql_orders ({COLUMNS})".encode())
    return delivery.files["user_order_log"]


def compare(
    world: Outside, peers: Path, content: bytes, rows: int, rounds: int, say: Callable[[str], None]
) -> Results:
    """Run each tool once a round, one after the other, and count what it landed."""
    results = Results(rows, SHARES)
    with TemporaryDirectory() as folder:
        files = _written(Path(folder), content, results)
        for number in range(rounds):
            for tool, command in commands(world, peers, files).items():
                if tool in SHARES and number:
                    continue
                settle(world)
                run = measured(command, {**world.environment(), **SETTINGS})
                results.add(tool, run, loading_seconds(tool, run))
                say(f"round {number + 1}: {tool} {run.seconds:.2f} s, {run.peak_mb:.0f} MB")
                _check(world, tool, results.rows_of(tool))
    return results


def rebuild(world: Outside, rounds: int, say: Callable[[str], None]) -> Retention:
    """Build the models of what was landed, then retention in each way by turns."""
    project, results = Project(), Retention()
    environment = {**world.environment(), **SETTINGS}
    built(project, environment, ["tag:orders"])
    say("the models are built")
    with psycopg.connect(world.postgres.url(world.warehouse), autocommit=True) as connection:
        connection.execute(OLD_VIEW.encode())
        connection.execute("vacuum analyze core.f_sales")
        results.facts = _count(connection, "core.f_sales")
        results.weeks = _count(connection, "old_retention")
        _check_agrees(connection)
        for number in range(rounds):
            began = time.perf_counter()
            connection.execute("create temporary table seen as select * from old_retention")
            results.seconds.setdefault(OLD, []).append(time.perf_counter() - began)
            connection.execute("drop table seen")
            for way, days in ((WEEK, {"VITRINA_DAYS": str(DAY)}), (WHOLE, {})):
                seconds = built(project, {**environment, **days}, [MART])[MART]
                results.seconds.setdefault(way, []).append(seconds)
            say(f"round {number + 1} of {rounds}: {_last(results)}")
        _check_agrees(connection)
    return results


def landing_section(results: Results) -> Section:
    """What the page says of landing."""
    return Section(
        f"Landing {results.rows:,} order lines from a CSV file in S3",
        [
            f"{len(results.runs[OURS])} rounds here. Fifty real days of a shop's order lines, repeated with"
            " new ids, in the order of their days. `psql \\copy` of a local copy of the file into a table"
            " of the same types is the ceiling; the peers read the local copy too, Vitrina reads S3."
            " *Loading* leaves out the start of a Python interpreter and its imports where the tool"
            " lets it be told apart; *command* is all of it.",
            *compared(results, CEILING),
            "Vitrina also asks the report API, finds each line's day, identity and last copy, sets aside"
            " what can't be used, makes partitions and writes the ledger; the others do none of it.",
        ],
        bars(results),
    )


def retention_section(results: Retention) -> Section:
    """What the page says of retention."""
    old = results.of(OLD)
    rows = [
        [way, f"{results.of(way):.2f} s", f"{old / results.of(way):.1f}×"]
        for way in (OLD, WHOLE, WEEK)
    ]
    return Section(
        f"Customer retention over {results.facts:,} facts of {results.weeks} weeks",
        [
            f"{len(results.seconds[OLD])} rounds here. The old pipelines' view computes all weeks at each"
            " read, with a step each for weeks, orders, refunds, new and returning customers, joined on"
            " the week (here without the fan-out that made them wrong)."
            f" `{MART}` has months too, is a table, and is rebuilt by period, a week's with its month:"
            " seconds of the model's node in dbt.",
            table(["way", "median", "the old view over it"], rows),
        ],
        [
            Bar(way, results.of(way), f"{results.of(way):.2f} s", ours=way != OLD)
            for way in (OLD, WHOLE, WEEK)
        ],
    )


def commands(world: Outside, peers: Path, files: Mapping[str, Path]) -> dict[str, list[str]]:
    """The command of each tool, its documented way."""
    target = world.postgres.url(world.warehouse)
    python, script = str(peers / "bin" / "python"), str(Path(__file__).parent / "peers.py")
    copy = f"\\copy psql_orders from '{files[CEILING]}' (format csv, header)"
    psql = [str(tools() / "psql"), "-qd", target, "-c", "truncate psql_orders", "-c", copy]
    return {
        OURS: [sys.executable, "-m", "ingestion", "orders", "--mode", "report", "--again"],
        CEILING: psql,
        "ingestr": [
            str(peers / "bin" / "ingestr"),
            "ingest",
            "--yes",
            "--progress",
            "log",
            "--source-uri",
            f"csv://{files['ingestr']}",
            "--source-table",
            "orders",
            "--dest-uri",
            target,
            "--dest-table",
            "public.ingestr_orders",
        ],
        "sling": [
            sling(peers),
            "run",
            "--src-stream",
            f"file://{files['sling']}",
            "--tgt-conn",
            f"{target}?sslmode=disable",
            "--tgt-object",
            "public.sling_orders",
            "--mode",
            "full-refresh",
        ],
        "dlt": [python, script, "dlt-csv", str(files["dlt"]), target, "dlt_orders", "0"],
        "pandas": [
            python,
            script,
            "pandas-csv",
            str(files["pandas"]),
            target,
            "pandas_orders",
            "0",
        ],
    }


def _written(folder: Path, content: bytes, results: Results) -> dict[str, Path]:
    """The file on disk for each tool; a slow one gets the beginning."""
    whole = folder / "user_order_log.csv"
    whole.write_bytes(content)
    files = dict.fromkeys((CEILING, "sling", "dlt"), whole)
    for tool in SHARES:
        files[tool] = folder / f"{tool}.csv"
        # The header and so many lines; no cell holds a newline.
        with whole.open("rb") as source, files[tool].open("wb") as part:
            for _ in range(results.rows_of(tool) + 1):
                part.write(source.readline())
    return files


def _check(world: Outside, tool: str, rows: int) -> None:
    """Each landed what it should: a fast tool that loses rows is no peer."""
    name = {OURS: "raw.user_order_log", CEILING: "psql_orders"}.get(tool, f"{tool}_orders")
    with psycopg.connect(world.postgres.url(world.warehouse)) as connection:
        found = _count(connection, name)
    if found != rows:
        raise RuntimeError(f"{tool} landed {found} rows, not {rows}")


def _check_agrees(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """The old view, without its fan-out, and the mart say the same of each week."""
    ours, old = OUR_WEEKS, "select * from old_retention"
    differing = connection.execute(
        f"({ours} except {old}) union all ({old} except {ours})".encode()
    ).fetchall()
    if differing:
        raise RuntimeError(f"the old view and {MART} differ: {differing[:3]}")


def _count(connection: psycopg.Connection[tuple[object, ...]], name: str) -> int:
    found = connection.execute(f"select count(*) from {name}".encode()).fetchone()
    return int(str(found[0])) if found else 0


def _last(results: Retention) -> str:
    return ", ".join(f"{way} {seconds[-1]:.2f} s" for way, seconds in results.seconds.items())
