"""Pictures of `seeless bench`: time to the first token against tokens, and what was reached of what FLOPs promise."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seeless.bench.measure import SCHEMA, Row
from seeless.errors import shortened
from seeless.eval.drawing import INK, check_picture, plain, plain_axis, save, styles_of
from seeless.eval.errors import InvalidRequest
from seeless.jsonl import NoJSON, read_lines

WHOLE = "none"  # the untouched model's row
OF_A_PANEL = ("model", "scale", "depth", "machine", "device", "dtype", "clock", "cache", "workload")


def is_bench(file: Path) -> bool:
    """Whether the first line of a file is a row of `seeless bench`."""
    first: Any = next((value for _, value in read_lines(file)), None)
    return isinstance(first, dict) and "workload" in first and "schema" in first


def read_bench(file: Path) -> list[Row]:
    """The rows of a file that have times.

    Raises:
        InvalidRequest: a line is no row of this release's `seeless bench`.
    """
    rows = []
    for number, value in read_lines(file):
        if isinstance(value, NoJSON) or not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise InvalidRequest(f"{file}, line {number}: no row of `seeless bench` in the form {SCHEMA}")
        if "seconds" in value:
            rows.append(value)
    return rows


def plot_bench(rows: Sequence[Row], output: Path, made_of: str = "") -> None:
    """Draw a row of panels per model, machine and workload; bars are quartiles. `made_of` as for `save`.

    Raises:
        InvalidRequest: there is nothing to draw, or the kind of file is unknown.
        MissingExtra: matplotlib is not installed.
        UnwritableFile: the picture cannot be written.
    """
    check_picture(output)
    from matplotlib.figure import Figure

    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(_panel_of(row), []).append(row)
    if not panels:
        raise InvalidRequest("there is nothing to draw: no row has times")
    styles = styles_of({row["strategy"] for row in rows} - {WHOLE})
    figure = Figure(figsize=(13, 5.2 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 2, squeeze=False)
    for own, (left, right) in zip(panels.values(), axes, strict=True):
        _times(left, own, styles)
        _reached(right, own, styles)
        left.set_title(plain(_title(own[0])), loc="left", color=INK)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9, handlelength=4)
    save(figure, output, made_of)


def _panel_of(row: Row) -> str:
    return json.dumps([row[name] for name in OF_A_PANEL])


def _title(row: Row) -> str:
    load = row["workload"]
    scale = f" at {row['scale']}" if row["scale"] not in (None, "1") else ""
    return f"{shortened(row['model'])}{scale}, {row['tokens']['visual']} visual tokens, batch {load['batch']}"


def _times(axis: Any, rows: list[Row], styles: dict[str, dict[str, Any]]) -> None:
    """Milliseconds to the first token against visual tokens per layer."""
    plain_axis(axis)
    axis.set_xlabel("visual tokens per decoder layer")
    axis.set_ylabel("time to the first token, ms")
    for row in rows:
        if row["strategy"] == WHOLE:
            first = 1e3 * row["seconds"]["first"]["median"]
            axis.axhline(first, color=INK, linewidth=1, linestyle=(0, (5, 3)), label="untouched")
            axis.plot(row["tokens"]["average"], first, color=INK, marker="*", markersize=11)
    for name, style in styles.items():
        own = sorted((r for r in rows if r["strategy"] == name), key=lambda row: row["tokens"]["average"])
        if own:
            times = [row["seconds"]["first"] for row in own]
            middle = [1e3 * time["median"] for time in times]
            bars = [[1e3 * abs(time[end] - time["median"]) for time in times] for end in ("low", "high")]
            places = [row["tokens"]["average"] for row in own]
            axis.errorbar(places, middle, bars, fmt="none", ecolor=style["color"], alpha=0.3)
            axis.plot(places, middle, label=plain(name), linewidth=1.3, markersize=5.5, **style)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)


def _reached(axis: Any, rows: list[Row], styles: dict[str, dict[str, Any]]) -> None:
    """The measured speed-up against that of the FLOPs."""
    plain_axis(axis)
    axis.set_xlabel("speed-up that FLOPs promise, to the first token")
    axis.set_ylabel("speed-up measured")
    most = max(row["flops_speed_up"]["first"] for row in rows)
    axis.plot([1, most], [1, most], color=INK, linewidth=1, linestyle=(0, (1, 1.2)))
    for name, style in styles.items():
        own = sorted((r for r in rows if r["strategy"] == name), key=lambda row: row["flops_speed_up"]["first"])
        points = [[row[kind]["first"] for row in own] for kind in ("flops_speed_up", "speed_up")]
        axis.plot(*points, linewidth=1.3, markersize=5.5, **style)
