"""Pictures of sweeps: accuracy against what it costs, in visual tokens per layer and in FLOPs."""

import hashlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import seeless as sl
from seeless.errors import brief, shortened
from seeless.eval.errors import InvalidRequest
from seeless.eval.front import pareto_front
from seeless.eval.points import AGREEMENT, NONE, Point, metrics, points
from seeless.eval.rows import Row, has_scores
from seeless.outputs import check_file, replace_file

MADE_OF = "seeless-made-of"  # the entry of a PNG that says from what it was drawn
COLOURS = ("#3b6fb6", "#f28e2b", "#c8202f", "#3fb8b0", "#3f8f3a", "#b5a11c", "#7a4fb5", "#f08fc0", "#84512f", "#6b6b6b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8")
LINES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))  # solid, dashes, dots, both
AXES = (
    ("tokens", "visual tokens per decoder layer"),
    ("flops", "FLOPs of the prefill, share of the untouched"),
)
INK, FAINT = "#333333", "#dddddd"


def plot(rows: Sequence[Row], output: Path, metric: str | None = None, made_of: str = "") -> None:
    """Draw one line per strategy through its budgets, with 95 % intervals, and the Pareto front over all of them.

    A row of panels per model and task; left against visual tokens per layer, right against FLOPs.

    Args:
        output: .png, .svg or .pdf.
        metric: "agreement" for the share of the untouched model's answers; unless told a task's first metric.
        made_of: `fingerprint` of what the rows were read from, kept in a PNG.

    Raises:
        InvalidRequest: there is nothing to draw, or the kind of file is unknown.
        MissingExtra: matplotlib is not installed.
        UnwritableFile: the picture cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise sl.MissingExtra('plots need matplotlib: pip install "seeless[plot]"')
    from matplotlib.figure import Figure

    if output.suffix not in (".png", ".svg", ".pdf"):
        raise InvalidRequest(f"a plot is written as .png, .svg or .pdf, not as {brief(output.name)}")
    check_file(output)
    found = points(rows, metric)
    panels = list(dict.fromkeys((point.model, point.task) for point in found))
    if not panels:
        raise InvalidRequest(_nothing(rows, metric))
    styles = _styles(found)
    figure = Figure(figsize=(13, 5.6 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), len(AXES), squeeze=False, sharey="row")
    for (model, task), pair in zip(panels, axes, strict=True):
        own = [point for point in found if (point.model, point.task) == (model, task)]
        for axis, (cost, label) in zip(pair, AXES, strict=True):
            _panel(axis, own, cost, styles)
            axis.set_xlabel(label)
        named = "agreement with the untouched model" if metric == AGREEMENT else _plain(own[0].metric)
        pair[0].set_ylabel(f"{named}, %")
        pair[0].set_title(_plain(f"{task}, {model}"), loc="left", color=INK)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9, handlelength=4)
    drawn = io.BytesIO()
    metadata = {MADE_OF: made_of} if output.suffix == ".png" else None
    figure.savefig(drawn, format=output.suffix[1:], dpi=130, metadata=metadata)
    replace_file(output, drawn.getvalue())


def _plain(text: str) -> str:
    """A name as matplotlib draws it without taking it for a formula, or for something to hide from the legend."""
    text = shortened(text, 80).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _nothing(rows: Sequence[Row], metric: str | None) -> str:
    """Why there is no point to draw."""
    without = sum(not has_scores(row) for row in rows)
    if not rows:
        return "there is nothing to draw: no row of a sweep is there"
    if without == len(rows):
        return f"there is nothing to draw: none of {without} runs has scores, all were refused or failed"
    if metric is None:
        return "there is nothing to draw: no run has a finite score at a finite cost"
    return f"there is no run with the metric {brief(metric)} to draw; there are {', '.join(metrics(rows))}"


def fingerprint(files: Sequence[Path], metric: str | None = None) -> str:
    """What a plot of these files depends on: their contents, the metric, and the code that draws."""
    digest = hashlib.sha256(str(metric).encode())
    for file in [*files, Path(__file__), Path(__file__).with_name("points.py"), Path(__file__).with_name("front.py")]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def drawn_from(picture: Path) -> str | None:
    """The `made_of` of a PNG that `plot` drew; None if it has none."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.info.get(MADE_OF)


def _styles(found: Sequence[Point]) -> dict[str, dict[str, Any]]:
    """How each strategy is drawn; those of one colour have another line and another marker."""
    names = sorted({point.strategy for point in found} - {NONE})
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": LINES[i // len(COLOURS) % len(LINES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def _panel(axis: Any, found: Sequence[Point], cost: str, styles: dict[str, dict[str, Any]]) -> None:
    axis.grid(color=FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    best = [found[i] for i in pareto_front([(getattr(point, cost), point.value) for point in found])]
    across, up = [getattr(point, cost) for point in best], [100 * point.value for point in best]
    axis.step(across, up, where="post", color=INK, linewidth=6, alpha=0.13, zorder=1)
    for point in (point for point in found if point.strategy == NONE):
        axis.axhline(100 * point.value, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="untouched", zorder=1.5)
        axis.axhspan(*_ends(point), color=INK, alpha=0.05, linewidth=0, zorder=0)
        axis.plot(getattr(point, cost), 100 * point.value, color=INK, marker="*", markersize=11, zorder=3)
    for name, style in styles.items():
        own = sorted((p for p in found if p.strategy == name), key=lambda point: getattr(point, cost))
        if own:
            values = [100 * point.value for point in own]
            ends = [_ends(point) for point in own]
            bars = [[v - low for v, (low, _) in zip(values, ends, strict=True)]]
            bars.append([high - v for v, (_, high) in zip(values, ends, strict=True)])
            places = [getattr(point, cost) for point in own]
            axis.errorbar(places, values, bars, fmt="none", ecolor=style["color"], alpha=0.28, elinewidth=1.2, zorder=2)
            axis.plot(places, values, label=_plain(name), linewidth=1.3, markersize=5.5, zorder=3, **style)
    ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.3, "s": 95, "zorder": 4}
    axis.scatter(across, up, label="Pareto front", **ring)
    if cost == "flops":
        axis.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    else:
        axis.set_xlim(left=0)


def _ends(point: Point) -> tuple[float, float]:
    """Of the interval, in per cent; where there is none, the value itself."""
    low = point.value if point.low is None else point.low
    high = point.value if point.high is None else point.high
    return 100 * low, 100 * high
