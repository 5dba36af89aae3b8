"""The marts on ClickHouse against the same on PostgreSQL, from the same sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from bench import activity, landing, orders
from bench.measure import built, middle
from bench.report import Bar, Section, table
from ingestion.cli import main as ingestion
from sandbox.clickhouse import ClickhouseServer
from sandbox.dbt import Project, environment
from sandbox.feed import FeedServer
from sandbox.outside import Outside

ENGINES = ("postgres", "clickhouse")
NAMES = {"postgres": "PostgreSQL", "clickhouse": "ClickHouse"}
DAYS_OF_ACTIVITY = 10
# A mart, and the day that is built anew.
MARTS: Mapping[str, date] = {
    "dm_client_telemetry": landing.DAY,
    "f_sales": orders.DAY,
    "f_customer_retention": orders.DAY,
    "activity_slices": landing.DAY,
}
A_DAY, ALL = "a day", "all of it"


@dataclass
class Marts:
    """Seconds of each mart's node by engine and what is built, a value a round; its rows."""

    events: int
    lines: int
    seconds: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def of(self, mart: str, engine: str, what: str) -> float:
        """The median."""
        return middle(self.seconds[mart, engine, what])


def fill(world: Outside, feed: FeedServer, events: int, lines: int) -> None:
    """Let the sources have a day of telemetry, a report of orders and days of activity."""
    landing.fill(world, events)
    orders.deliver(world, lines)
    for number in range(DAYS_OF_ACTIVITY):
        activity.fill(
            feed, landing.DAY - timedelta(days=number), max(10, events // DAYS_OF_ACTIVITY)
        )


def compare(
    world: Outside,
    server: ClickhouseServer,
    feed: FeedServer,
    events: int,
    lines: int,
    rounds: int,
    say: Callable[[str], None],
) -> Marts:
    """Land and build all on each engine, then each mart anew by turns."""
    results = Marts(events, lines)
    common = {**world.environment(), **landing.SETTINGS, "FEED_CLICKHOUSE_URL": feed.url}
    settings = {
        "postgres": common,
        "clickhouse": {**common, **server.environment(), "VITRINA_TARGET": "clickhouse"},
    }
    projects = {engine: Project() for engine in ENGINES}
    for engine in ENGINES:
        _land(settings[engine])
        built(projects[engine], settings[engine], [f"+{mart}" for mart in MARTS])
        say(f"all is built on {NAMES[engine]}")
    for number in range(rounds):
        for mart, day in MARTS.items():
            for what, window in ((A_DAY, {"VITRINA_DAYS": str(day)}), (ALL, {})):
                for engine in ENGINES:
                    found = built(projects[engine], {**settings[engine], **window}, [mart])
                    results.seconds.setdefault((mart, engine, what), []).append(found[mart])
        say(f"round {number + 1} of {rounds}")
    return results


def section(results: Marts) -> Section:
    """What the page says of it."""
    rows = []
    for mart in MARTS:
        cells = [f"`{mart}`"]
        for what in (A_DAY, ALL):
            ours, other = (results.of(mart, engine, what) for engine in reversed(ENGINES))
            cells += [f"{other:.2f} s", f"{ours:.2f} s", f"{other / ours:.1f}×"]
        rows.append(cells)
    header = ["mart"]
    for what in (A_DAY, ALL):
        header += [f"PostgreSQL, {what}", f"ClickHouse, {what}", "the first over the second"]
    return Section(
        "The marts on ClickHouse against the same on PostgreSQL",
        [
            f"The same sources landed in both: a day of {results.events:,} telemetry events, a report of"
            f" {results.lines:,} order lines, {DAYS_OF_ACTIVITY} days of activity with"
            f" {results.events // DAYS_OF_ACTIVITY:,} events each. Seconds of the mart's node in dbt; what"
            " lies below it is there. ClickHouse runs within the sandbox's HTTP server. A small day is"
            " the price of its statements on either; the whole is the price of the rows.",
            table(header, rows),
        ],
        [
            Bar(
                f"{mart}, all, {NAMES[engine]}",
                results.of(mart, engine, ALL),
                f"{results.of(mart, engine, ALL):.2f} s",
                ours=engine == "clickhouse",
            )
            for mart in MARTS
            for engine in ENGINES
        ],
    )


def _land(settings: Mapping[str, str]) -> None:
    end = landing.DAY + timedelta(days=1)
    start = end - timedelta(days=DAYS_OF_ACTIVITY)
    commands = (
        ["init"],
        ["telemetry", "--date", str(landing.DAY)],
        ["orders", "--mode", "report"],
        ["feed", "--start-date", str(start), "--end-date", str(end)],
    )
    for command in commands:
        with environment(settings):
            status = ingestion(command)
        if status:
            raise RuntimeError(f"{command[0]}: exit status {status}")
