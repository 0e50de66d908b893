"""Figures of the studies."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seeless.analysis.dispersion import histogram, kinds
from seeless.analysis.gathering import Gathered
from seeless.eval.drawing import COLOURS, INK, plain, plain_axis, save
from seeless.report import Report

if TYPE_CHECKING:
    from PIL.Image import Image

TITLES = {
    "full": "all rows",
    "image": "rows of visual tokens",
    "text": "rows of text",
    "last": "the last token's row",
    "tower": "the vision tower",
}
COLOUR_OF = dict(zip(("tower", "full", "image", "text", "last"), COLOURS, strict=False))


def draw_shift(gathered: Gathered, folder: Path, ending: str) -> list[Path]:
    """How attention leans, layer by layer, in one picture, and one picture per layer and of the tower: attention by
    place, and where the tokens form a grid, as a map."""
    from matplotlib.figure import Figure

    files = [folder / f"shift{ending}"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    _leaning(axis, gathered)
    save(figure, files[0])
    for number, layer in enumerate(gathered.facts["shift layers"]):
        rows = {kind: gathered.mean(f"shift/{kind}")[number] for kind in ("full", "image", "text", "last")}
        files.append(folder / "shift" / f"layer_{layer:02d}{ending}")
        _by_place(rows, gathered, f"decoder layer {layer}", files[-1])
    if "shift/tower" in gathered.sums:
        files.append(folder / "shift" / f"tower{ending}")
        _by_place({"tower": gathered.mean("shift/tower")}, gathered, "", files[-1])
    return files


def _leaning(axis: Any, gathered: Gathered) -> None:
    """The share of the last quarter of the tokens, per layer."""
    from matplotlib.ticker import MaxNLocator

    from seeless.analysis.shift import KINDS, last_quarter

    plain_axis(axis)
    layers = gathered.facts["shift layers"]
    axis.axhline(25, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="even: 25 %")
    for kind in KINDS:
        shares = [100 * last_quarter(row) for row in gathered.mean(f"shift/{kind}")]
        axis.plot(layers, shares, color=COLOUR_OF[kind], marker="o", markersize=4, label=TITLES[kind])
    if "shift/tower" in gathered.sums:
        share = 100 * last_quarter(gathered.mean("shift/tower"))
        axis.axhline(share, color=COLOUR_OF["tower"], linewidth=1.3, label=TITLES["tower"])
    axis.set_xlabel("decoder layer")
    axis.set_ylabel("attention to the last quarter of the visual tokens, %")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(f"attention shift, mean of {gathered.samples} pictures", loc="left", color=INK)
    axis.legend(frameon=False, fontsize=9)


def _by_place(rows: dict[str, np.ndarray], gathered: Gathered, what: str, file: Path) -> None:
    from matplotlib.figure import Figure

    grid = gathered.facts["grid"]
    lines = 1 if grid is None else 2
    figure = Figure(figsize=(3.6 * len(rows) + 0.6, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, len(rows), squeeze=False)
    for column, (kind, row) in enumerate(rows.items()):
        axis = axes[0][column]
        plain_axis(axis)
        axis.stairs(row, np.arange(len(row) + 1) + 0.5, fill=True, color=COLOUR_OF[kind])
        axis.set_xlim(0.5, len(row) + 0.5)
        axis.set_ylim(bottom=0)
        axis.set_title(", ".join(filter(None, (TITLES[kind], what))), loc="left", color=INK, fontsize=9)
        axis.set_xlabel("place of the visual token")
        axis.yaxis.set_major_formatter("{x:.2g}")
        if grid is not None:
            image = axes[1][column].imshow(row.reshape(grid), cmap="viridis")
            axes[1][column].set_axis_off()
            figure.colorbar(image, ax=axes[1][column], shrink=0.8, format="%.2g")
    save(figure, file)


def draw_dispersion(gathered: Gathered, folder: Path, ending: str) -> list[Path]:
    """The curve of what the most attended tokens get, and the histograms."""
    from matplotlib.figure import Figure

    file = folder / f"dispersion{ending}"
    found = kinds(gathered)
    figure = Figure(figsize=(4.6 * (1 + len(found)), 4.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(found))
    plain_axis(axes[0])
    titles = {**TITLES, "last": f"the last token's row, decoder layer {gathered.facts['dispersion layer']}"}
    for kind in found:
        curve = 100 * np.cumsum(gathered.mean(f"dispersion/{kind}"))
        axes[0].plot(100 * np.arange(len(curve)) / len(curve), curve, color=COLOUR_OF[kind], label=titles[kind])
    axes[0].plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=(0, (5, 3)), label="even")
    axes[0].set_xlabel("most attended visual tokens, %")
    axes[0].set_ylabel("their attention, %")
    axes[0].set_ylim(0, 102)
    axes[0].set_title(f"mean of {gathered.samples} pictures", loc="left", color=INK)
    axes[0].legend(frameon=False, fontsize=9, loc="lower right")
    for axis, kind in zip(axes[1:], found, strict=True):
        edges, share = histogram(gathered.values(f"dispersion/{kind}"))
        plain_axis(axis)
        axis.stairs(share, edges, fill=True, color=COLOUR_OF[kind])
        axis.set_yscale("log")
        axis.set_ylim(share[share > 0].min() / 2, 1)
        axis.set_xlim(0, 1)
        axis.set_xlabel("attention, as a share of the largest")
        axis.set_ylabel("share of all values")
        axis.set_title(titles[kind], loc="left", color=INK, fontsize=9)
    save(figure, file)
    return [file]


def draw_share(gathered: Gathered, folder: Path, ending: str) -> list[Path]:
    """Attention to visual tokens, layer by layer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axis = figure.subplots()
    plain_axis(axis)
    for kind in ("text", "last"):
        share = 100 * gathered.mean(f"share/{kind}")
        layers = gathered.facts["share layers"]
        axis.plot(layers, share, color=COLOUR_OF[kind], marker="o", markersize=4, label=TITLES[kind])
    axis.set_xlabel("decoder layer")
    axis.set_ylabel("attention to visual tokens, %")
    axis.set_ylim(0, 102)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(f"mean of {gathered.samples} pictures", loc="left", color=INK)
    axis.legend(frameon=False, fontsize=9)
    save(figure, file := folder / f"share{ending}")
    return [file]


def draw_overlap(numbers: dict[str, Any], samples: int, folder: Path, ending: str) -> list[Path]:
    """A panel per budget: the overlap of each pair of methods layer by layer, and dotted, that of chance."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.6 * len(numbers) + 1.5, 4.2), layout="constrained")
    axes = figure.subplots(1, len(numbers), squeeze=False)[0]
    for axis, (budget, pairs) in zip(axes, numbers.items(), strict=True):
        plain_axis(axis)
        for at, pair in enumerate(pairs):
            colour, label = COLOURS[at % len(COLOURS)], plain(" and ".join(pair["methods"]))
            axis.plot([100 * own for own in pair["overlap"]], color=colour, marker="o", markersize=4, label=label)
            axis.plot([100 * own for own in pair["chance"]], color=colour, linewidth=1, linestyle=(0, (1, 1.2)))
        axis.set_ylim(0, 102)
        axis.set_xlabel("decoder layer")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(f"keep {budget}, mean of {samples} pictures", loc="left", color=INK, fontsize=9)
    axes[0].set_ylabel("kept by both, of those kept by either, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    save(figure, file := folder / f"overlap{ending}")
    return [file]


def draw_occlusion(numbers: dict[str, Any], samples: int, folder: Path, ending: str) -> list[Path]:
    """What answers lose by each region, and how many are others then, as maps."""
    from matplotlib.figure import Figure

    loss, changed = np.array(numbers["mean_loss"]), 100 * np.array(numbers["share_changed"])
    maps = {
        "mean loss of log-likelihood, nats": (loss, {}),
        "answers that change, %": (changed, {"vmin": 0, "vmax": max(1.0, changed.max())}),
    }
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axis, (title, (values, limits)) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        drawn = axis.imshow(values, cmap="viridis", **limits)
        axis.set_axis_off()
        axis.set_title(title, loc="left", color=INK, fontsize=9)
        figure.colorbar(drawn, ax=axis, shrink=0.8, format="%.2g")
    side = numbers["region"]
    figure.suptitle(f"one region of {side} x {side} tokens dropped, {samples} pictures", color=INK, fontsize=10)
    save(figure, file := folder / f"occlusion{ending}")
    return [file]


def draw_sheet(
    image: "Image", names: list[str], reports: dict[str, list[Report]], file: Path, loss: np.ndarray | None = None
) -> None:
    """One picture under each method (a line) and budget (a column), what is dropped in the end darkened.

    Args:
        names: of the methods.
        reports: by budget, one per method.
        loss: by region, what its answer loses without it: a column of its own, on the left.
    """
    from matplotlib.figure import Figure

    width = 3.0 * min(2.0, max(0.5, image.width / image.height))
    first = 0 if loss is None else 1
    figure = Figure(figsize=(width * (first + len(reports)), 3.3 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), first + len(reports), squeeze=False)
    if loss is not None:
        for axis in axes[:, 0]:
            axis.set_axis_off()
        axes[0][0].imshow(image.convert("L"), cmap="gray", extent=(0, 1, 0, 1), aspect=image.height / image.width)
        drawn = axes[0][0].imshow(
            loss, cmap="inferno", alpha=0.65, extent=(0, 1, 0, 1), aspect=image.height / image.width
        )
        axes[0][0].set_title("loss without a region, nats", fontsize=9)
        figure.colorbar(drawn, ax=axes[0][0], shrink=0.7, format="%.2g")
    for column, (budget, of_budget) in enumerate(reports.items(), first):
        for line, (name, report) in enumerate(zip(names, of_budget, strict=True)):
            axis = axes[line][column]
            axis.imshow(report.overlay(image))
            axis.set_axis_off()
            axis.set_title(plain(f"{name}, keep {budget}: {report.n_after[0]} of {report.n_before[0]}"), fontsize=9)
    save(figure, file)
