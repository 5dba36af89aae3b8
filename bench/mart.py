"""Building one day of the telemetry models at histories of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date

import psycopg

from bench.measure import middle
from bench.report import Bar, Section, table
from sandbox.dbt import Project, environment
from sandbox.outside import Outside, outside
from sandbox.postgres import PostgresServer

LAST_DAY = date(2024, 12, 8)
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


@dataclass
class Histories:
    """Seconds of each model's node, by model and days of history, a value a round."""

    rows_a_day: int
    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def of(self, model: str, days: int) -> float:
        """The median."""
        return middle(self.seconds[model][days])


def compare(
    server: PostgresServer,
    histories: Sequence[int],
    rows: int,
    rounds: int,
    say: Callable[[str], None],
) -> Histories:
    """Build the last day of each history once a round, one after the other."""
    results = Histories(rows)
    with ExitStack() as stack:
        worlds: list[tuple[int, Outside, Project]] = []
        for days in histories:
            world = stack.enter_context(outside(server, name=f"_{days}"))
            _fill(world, days, rows)
            project = Project()
            _build(project, world, [])
            worlds.append((days, world, project))
            say(f"{days} days of {rows:,} events are built")
        for number in range(rounds):
            for days, world, project in worlds:
                for model, seconds in _build(project, world, [LAST_DAY]).items():
                    results.seconds.setdefault(model, {}).setdefault(days, []).append(seconds)
            say(f"round {number + 1} of {rounds}")
    return results


def section(results: Histories) -> Section:
    """What the page says of it."""
    days = sorted({n for by_days in results.seconds.values() for n in by_days})
    rows = [
        [
            f"`{model}`",
            *(
                f"{results.of(model, n):.2f} s ({results.of(model, n) / results.of(model, days[0]):.2f})"
                for n in days
            ),
        ]
        for model in results.seconds
    ]
    return Section(
        f"One day of the models at a history of {', '.join(map(str, days[:-1]))} and {days[-1]} days",
        [
            f"{results.rows_a_day:,} events a day. Seconds of the model's node in dbt, and its ratio"
            " to a history of one day.",
            table(["model", *(f"{n} days" for n in days)], rows),
        ],
        [
            Bar(f"{model}, {n} d", results.of(model, n), f"{results.of(model, n):.2f} s", ours=True)
            for model in results.seconds
            for n in days
        ],
    )


def _fill(world: Outside, days: int, rows: int) -> None:
    from ingestion.cli import main as ingestion

    with environment(world.environment()):
        ingestion(["init"])
    with psycopg.connect(world.postgres.url(world.warehouse), autocommit=True) as connection:
        connection.execute(HISTORY.format(days=days, rows=rows, last=LAST_DAY).encode())


def _build(project: Project, world: Outside, days: Sequence[date]) -> dict[str, float]:
    window = {"VITRINA_DAYS": ",".join(map(str, days))} if days else {}
    run = project.invoke(["run", "--select", "tag:telemetry"], {**world.environment(), **window})
    if not run.success:
        raise RuntimeError("\n".join(run.failures()))
    return {node.name: node.seconds for node in run.nodes if node.name in MODELS}
