"""`python bench/plot.py CHARTS.json OUT.svg`, by the interpreter of the peers' environment."""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

OURS, OTHERS = "#2a6f97", "#a9bcc6"


def main() -> None:
    """Draw a chart of horizontal bars for each section, one below the other."""
    charts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    # The same picture for the same numbers, whenever it is drawn.
    mpl.rcParams.update({"svg.hashsalt": "vitrina", "font.size": 10, "svg.fonttype": "none"})
    heights = [len(chart["bars"]) + 1.2 for chart in charts]
    figure, axes = plt.subplots(
        len(charts),
        figsize=(9, 0.36 * sum(heights)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
        squeeze=False,
    )
    for chart, axis in zip(charts, axes[:, 0], strict=True):
        bars = chart["bars"]
        drawn = axis.barh(
            [bar["name"] for bar in bars],
            [bar["value"] for bar in bars],
            color=[OURS if bar["ours"] else OTHERS for bar in bars],
        )
        axis.bar_label(drawn, [f" {bar['label']}" for bar in bars])
        axis.invert_yaxis()
        axis.set_title(chart["title"], loc="left", fontweight="bold", fontsize=11)
        axis.margins(x=0.22)
        axis.set_xlim(left=0)
        axis.xaxis.set_visible(False)
        axis.spines[:].set_visible(False)
        axis.tick_params(left=False)
    # Tight: a title may be wider than its chart.
    figure.savefig(sys.argv[2], metadata={"Date": None}, bbox_inches="tight", pad_inches=0.15)


main()
