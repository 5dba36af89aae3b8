"""The page of a benchmark run: sections of Markdown, and the bars that `bench/plot.py` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Bar:
    """A bar of a chart; `ours` sets it off."""

    name: str
    value: float
    label: str
    ours: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: a title, paragraphs, and a chart."""

    title: str
    paragraphs: Sequence[str]
    chart: Sequence[Bar] = field(default_factory=tuple)


def page(sections: Sequence[Section], command: str, machine: str, rounds: int) -> str:
    """The page as Markdown."""
    head = [
        "# Benchmarks",
        f"Made by `{command}` on {machine}. Each section is one run: what is compared took turns,"
        f" {rounds} rounds, and the medians are shown. Compare the ratios; the absolute numbers are"
        " this machine's.",
        "![The charts of the sections](benchmarks.svg)",
    ]
    parts = [[f"## {section.title}", *section.paragraphs] for section in sections]
    return "\n\n".join([*head, *(text for part in parts for text in part)]) + "\n"


def charts(sections: Sequence[Section]) -> list[dict[str, object]]:
    """What `bench/plot.py` reads: `[{"title", "bars": [{"name", "value", "label", "ours"}]}]`."""
    return [
        {"title": section.title, "bars": [asdict(bar) for bar in section.chart]}
        for section in sections
        if section.chart
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
