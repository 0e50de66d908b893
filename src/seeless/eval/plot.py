"""Pictures of sweeps: accuracy against what it costs, in visual tokens per layer and in FLOPs."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seeless.errors import brief
from seeless.eval.beside import beside_rows
from seeless.eval.drawing import INK, check_picture, plain, plain_axis, save, styles_of
from seeless.eval.errors import InvalidRequest
from seeless.eval.front import pareto_front
from seeless.eval.points import AGREEMENT, NONE, Point, metrics, points
from seeless.eval.published import PUBLISHED, Figure
from seeless.eval.rows import Row, has_scores, latest

AXES = (
    ("tokens", "visual tokens per decoder layer"),
    ("flops", "FLOPs of the prefill, share of the untouched"),
)


def plot(
    rows: Sequence[Row], output: Path, metric: str | None = None, made_of: str = "", published: bool = False
) -> int:
    """Draw one line per strategy through its budgets, with 95 % intervals, and the Pareto front over all of them.

    A row of panels per model and task; left against visual tokens per layer, right against FLOPs.

    Args:
        output: .png, .svg or .pdf.
        metric: "agreement" for the share of the untouched model's answers; unless told a task's first metric.
        made_of: `fingerprint` of what the rows were read from, kept in a PNG.
        published: whether to add what others have published for the same model, budget and benchmark, as hollow marks
            at what the measured run costs; faint where a figure is suspect or of another setting.

    Returns:
        How many published figures were drawn.

    Raises:
        InvalidRequest: there is nothing to draw, or the kind of file is unknown.
        MissingExtra: matplotlib is not installed, or pyarrow, where it is needed.
        UnwritableFile: the picture cannot be written.
    """
    check_picture(output)
    from matplotlib.figure import Figure

    found = points(rows, metric)
    panels = list(dict.fromkeys((point.model, point.task) for point in found))
    if not panels:
        raise InvalidRequest(_nothing(rows, metric))
    styles = styles_of({point.strategy for point in found} - {NONE})
    figures = published_of(rows, found) if published else {}
    figure = Figure(figsize=(13, 5.6 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), len(AXES), squeeze=False, sharey="row")
    for (model, task), pair in zip(panels, axes, strict=True):
        own = [point for point in found if (point.model, point.task) == (model, task)]
        for axis, (cost, label) in zip(pair, AXES, strict=True):
            _panel(axis, own, cost, styles)
            _hollow_marks(axis, {point: figures[point] for point in own if point in figures}, cost, styles)
            axis.set_xlabel(label)
        named = "agreement with the untouched model" if metric == AGREEMENT else plain(own[0].metric)
        pair[0].set_ylabel(f"{named}, %")
        pair[0].set_title(plain(f"{task}, {model}"), loc="left", color=INK)
    legend = {name: handle for pair in axes for handle, name in zip(*pair[0].get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(legend.values()), list(legend), loc="outside right center", frameon=False, fontsize=9, handlelength=4
    )
    save(figure, output, made_of)
    return sum(map(len, figures.values()))


def published_of(rows: Sequence[Row], found: Sequence[Point]) -> dict[Point, list[Figure]]:
    """The published figures of the points that have any, each figure once."""
    figures: dict[tuple, dict[Figure, None]] = {}
    for row, each in beside_rows(latest(rows)):
        key = (row["model"], each.task, row["strategy"], row["keep"], each.metric)
        figures.setdefault(key, {}).update(dict.fromkeys(each.figures))
    keys = {point: (point.model, point.task, point.strategy, point.keep, point.metric) for point in found}
    return {point: list(figures[key]) for point, key in keys.items() if key in figures}


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


def fingerprint(files: Sequence[Path], metric: str | None = None, published: bool = False) -> str:
    """What a plot of these files depends on: their contents, the metric, and the code that draws; and the published
    figures, where they are drawn."""
    digest = hashlib.sha256(str(metric).encode())
    drawing = [Path(__file__).with_name(f"{name}.py") for name in ("plot", "points", "front", "drawing")]
    for file in [*files, *drawing, *([PUBLISHED] if published else [])]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _panel(axis: Any, found: Sequence[Point], cost: str, styles: dict[str, dict[str, Any]]) -> None:
    plain_axis(axis)
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
            axis.plot(places, values, label=plain(name), linewidth=1.3, markersize=5.5, zorder=3, **style)
    ring = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.3, "s": 95, "zorder": 4}
    axis.scatter(across, up, label="Pareto front", **ring)
    if cost == "flops":
        axis.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    else:
        axis.set_xlim(left=0)


def _hollow_marks(axis: Any, figures: dict[Point, list[Figure]], cost: str, styles: dict[str, dict[str, Any]]) -> None:
    for point, own in figures.items():
        style = styles.get(point.strategy, {"color": INK, "marker": "*"})
        for figure in own:
            mark = {"facecolors": "none", "edgecolors": style["color"], "marker": style["marker"], "linewidths": 1.2}
            mark |= {"alpha": 1.0 if figure.trusted else 0.3, "s": 55, "zorder": 5}
            assert figure.scale is not None  # it has a task
            axis.scatter(getattr(point, cost), 100 * figure.value / figure.scale, **mark)
    legend = {"facecolors": "none", "edgecolors": INK, "marker": "s", "s": 45}
    if any(figure.trusted for own in figures.values() for figure in own):
        axis.scatter([], [], label="published (hollow marks)", **legend)
    if not all(figure.trusted for own in figures.values() for figure in own):
        axis.scatter([], [], label="published, suspect or\nof another setting", alpha=0.3, **legend)


def _ends(point: Point) -> tuple[float, float]:
    """Of the interval, in per cent; where there is none, the value itself."""
    low = point.value if point.low is None else point.low
    high = point.value if point.high is None else point.high
    return 100 * low, 100 * high
