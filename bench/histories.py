"""Building one day at histories of different lengths: a warehouse each, which take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from bench.measure import built, middle
from bench.report import Bar, Section, table
from sandbox.dbt import Project

LAST_DAY = date(2024, 12, 8)


@dataclass(frozen=True)
class Warehouse:
    """One that holds so many days up to LAST_DAY; `land` has the last one arrive once more."""

    days: int
    environment: Mapping[str, str] = field(repr=False)
    project: Project = field(default_factory=Project)
    land: Callable[[], object] = bool


@dataclass
class Histories:
    """Seconds of each model's node, by model and days of history, a value a round."""

    rows_a_day: int
    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def of(self, model: str, days: int) -> float:
        """The median."""
        return middle(self.seconds[model][days])


def compare(
    warehouses: Sequence[Warehouse],
    models: Sequence[str],
    rows_a_day: int,
    rounds: int,
    say: Callable[[str], None],
) -> Histories:
    """Build all of each, then its last day once a round, one after the other."""
    results = Histories(rows_a_day)
    for warehouse in warehouses:
        _build(warehouse, models, {})
        say(f"{warehouse.days} days of {rows_a_day:,} events are built")
    for number in range(rounds):
        for warehouse in warehouses:
            warehouse.land()
            seconds = _build(warehouse, models, {"VITRINA_DAYS": str(LAST_DAY)})
            for model in models:
                by_days = results.seconds.setdefault(model, {})
                by_days.setdefault(warehouse.days, []).append(seconds[model])
        say(f"round {number + 1} of {rounds}")
    return results


def section(results: Histories, what: str, note: str = "") -> Section:
    """What the page says of it; `what` names the models and their engine."""
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
        f"One day of {what} at a history of {', '.join(map(str, days[:-1]))} and {days[-1]} days",
        [
            f"{results.rows_a_day:,} events a day. Seconds of the model's node in dbt, and its ratio"
            f" to a history of one day. {note}".strip(),
            table(["model", *(f"{n} day{'s' if n > 1 else ''}" for n in days)], rows),
        ],
        [
            Bar(f"{model}, {n} d", results.of(model, n), f"{results.of(model, n):.2f} s", ours=True)
            for model in results.seconds
            for n in days
        ],
    )


def _build(
    warehouse: Warehouse, models: Sequence[str], window: Mapping[str, str]
) -> dict[str, float]:
    settings = {**warehouse.environment, **window}
    return built(warehouse.project, settings, [f"+{model}" for model in models])
