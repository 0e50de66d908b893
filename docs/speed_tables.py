"""The tables and pictures of docs/speed.md, from results/."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from markdown_table import table

from seeless.bench.architectures import scaled
from seeless.bench.plot import plot_bench, read_bench
from seeless.eval.drawing import plain_axis, save, styles_of
from seeless.eval.plot import fingerprint
from seeless.jsonl import read_lines

ROOT = Path(__file__).parents[1]
SPEED = ROOT / "results" / "speed.jsonl"
MEMORY = ROOT / "results" / "speed-memory.jsonl"
BEFORE = ROOT / "results" / "selectors-before.json"
SELECTORS, LONG = ROOT / "results" / "selectors.json", ROOT / "results" / "selectors-long.jsonl"
WIDE = [ROOT / "results" / f"selectors-wide{more}.json" for more in ("", "-8192")]
SPEED_PICTURE, LONG_PICTURE = ROOT / "docs" / "speed.png", ROOT / "docs" / "selection.png"
NONE = "none"
DEPTH = 32  # layers of a 7B


def _without_output(command: str) -> str:
    return re.sub(r" --output \S+", "", command)


def _made_by(row: dict[str, Any], rounds: str) -> str:
    versions = row["versions"]
    return (
        f"Made by `{_without_output(row['command'])}` at commit {row['commit'][:12]} on {row['machine']}, "
        f"{row['clock']} time, {rounds}, torch {versions['torch']}, transformers {versions['transformers']}."
    )


def _runs() -> list[list[dict[str, Any]]]:
    """The rows of each command."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_bench(SPEED):
        found.setdefault(row["command"], []).append(row)
    return list(found.values())


def gain() -> str:
    """What two methods save at 22 % of the tokens of one picture, in a sentence."""
    rows = next(rows for rows in _runs() if any(row["keep"] == 0.22 for row in rows))
    whole = next(row for row in rows if row["strategy"] == NONE)
    parts = []
    for name in ("fastv", "vispruner"):
        (row,) = (row for row in rows if (row["strategy"], row["keep"]) == (name, 0.22))
        memory = 100 * row["peak_bytes"] / whole["peak_bytes"]
        parts.append(f"{row['speed_up']['first']:.1f} times as early with `{name}` ({memory:.0f} % of the memory)")
    return (
        f"At 22 % of {whole['tokens']['visual']} visual tokens the first token of a random LLaVA of "
        f"{len(whole['tokens']['layers'])} layers, on one CPU thread, came {' and '.join(parts)}: "
        "[docs/speed.md](docs/speed.md)."
    )


def efficiency_tables() -> str:
    """How much of what FLOPs promise is reached, per method and budget."""
    parts = []
    for rows in _runs():
        reduced = [row for row in rows if row["strategy"] != NONE and row["keep"] != 1.0]
        if not reduced:
            continue
        whole = next(row for row in rows if row["strategy"] == NONE)
        heads = ["method", "keep", "tokens a layer", "choosing", "speed-up, first token (decoder)", "promised"]
        heads += ["efficiency", "of the decoder, causal", "peak memory"]
        lines = []
        for row in reduced:
            faster, promised, reached = row["speed_up"], row["flops_speed_up"], row["efficiency"]
            share = 100 * row["peak_bytes"] / whole["peak_bytes"]
            lines.append(
                [
                    f"`{row['strategy']}`",
                    f"{row['keep']}",
                    f"{row['tokens']['average']:.0f}",
                    f"{1e3 * row['seconds']['parts']['selection']['median']:.3g} ms",
                    *(f"{own['first']:.2f} ({own['decoder']:.2f})" for own in (faster, promised, reached)),
                    f"{_causal(row, whole):.2f}",
                    f"{share:.0f} %",
                ]
            )
        seconds = whole["seconds"]["first"]["median"]
        batch, visual = whole["workload"]["batch"], f"{whole['tokens']['visual']:,} visual tokens"
        asked = f"{batch} requests at once, {visual} each" if batch > 1 else visual
        size = f"{whole['depth']} layers of {_width(whole):,}"
        head = f"{asked}, {size}; untouched, the first token takes {seconds:.3g} s:"
        rounds = {row["rounds"] for row in rows}
        parts.append("\n".join([head, "", *table(heads, lines), "", _made_by(whole, f"{max(rounds)} rounds")]))
    return "\n\n".join(parts)


def _width(row: dict[str, Any]) -> int:
    """Of the decoder's hidden states."""
    return scaled(row["model"], Fraction(row["scale"]), row["depth"])["text_config"]["hidden_size"]


def _causal(row: dict[str, Any], whole: dict[str, Any]) -> float:
    """Efficiency of the decoder's prefill, where the half of the attention map that is masked counts nothing."""
    depth, inner = len(whole["tokens"]["layers"]), _width(row)
    text, batch = whole["tokens"]["prompt"] - whole["tokens"]["visual"], row["workload"]["batch"]

    def flops(layers: list[int], counted: int) -> int:
        assert len(layers) == depth
        return counted - sum(2 * batch * (n + text) ** 2 * inner for n in layers)

    before = flops(whole["tokens"]["layers"], whole["flops"]["before"]["decoder"])
    after = flops(row["tokens"]["layers"], row["flops"]["after"]["decoder"])
    return row["speed_up"]["decoder"] * after / before


def overhead_table() -> str:
    """What a handle costs that keeps everything."""
    parts = []
    for rows in _runs():
        whole = next(row for row in rows if row["strategy"] == NONE)
        full = [row for row in rows if row["strategy"] != NONE and row["keep"] == 1.0]
        if not full:
            continue
        lines = []
        for row in full:
            cells = [f"{100 * (1 / row['speed_up'][part] - 1):+.1f} %" for part in ("first", "decoder", "later")]
            memory = f"{100 * (row['peak_bytes'] / whole['peak_bytes'] - 1):+.1f} %"
            lines.append([f"`{row['strategy']}`", *cells, memory])
        first = whole["seconds"]["first"]
        spread = 50 * (first["high"] - first["low"]) / first["median"]
        note = f"The untouched model's own first tokens have quartiles {spread:.1f} % from their median."
        heads = ["method, keep=1.0", "first token", "decoder's prefill", "each later token", "peak memory"]
        parts.append("\n".join([*table(heads, lines), "", note, _made_by(whole, f"{whole['rounds']} rounds")]))
    return "\n\n".join(parts)


def memory_table() -> str:
    """The most memory a prefill takes beside the weights, as a share of the untouched one's."""
    rows = read_bench(MEMORY)
    whole = next(row for row in rows if row["strategy"] == NONE)
    shares = {row["strategy"]: row["peak_bytes"] / whole["peak_bytes"] for row in rows if row is not whole}
    listed = ", ".join(f"`{name}` {100 * share:.0f} %" for name, share in sorted(shares.items(), key=lambda x: x[1]))
    head = (
        f"At keep={rows[-1]['keep']}, {whole['tokens']['visual']} visual tokens; the untouched prefill takes "
        f"{whole['peak_bytes'] / 2**20:.1f} MiB beside the weights:"
    )
    return "\n".join([head, "", f"{listed}.", "", _made_by(whole, "1 round")])


def wide_list() -> str:
    """What choosing costs on layers as wide as a 7B's, the dearest method first."""
    return "\n\n".join(part for file in WIDE for part in _wide(json.loads(file.read_text())))


def _wide(data: dict[str, Any]) -> list[str]:
    model, parts = data["model"], []
    deep = DEPTH // model["layers"]
    for count, prefill in data["prefill_seconds"].items():
        shares = {name: rows[count]["share"] for name, rows in data["methods"].items() if "share" in rows[count]}
        dearest = sorted(shares, key=shares.__getitem__, reverse=True)
        listed = [f"`{name}` {100 * shares[name]:.2g} %" for name in dearest]
        parts.append(
            f"With {model['layers']} layers of {model['hidden']:,}, as wide as a 7B's, and {int(count):,} tokens, of a "
            f"prefill of {prefill:.3g} s: {', '.join(listed)}. {DEPTH} such layers have {deep} times the prefill, and "
            f"the choice costs the same: {100 * shares[dearest[0]] / deep:.2g} % at most."
        )
    made = (
        f"Made by `{_without_output(data['command'])}` at commit {data['commit'][:12]} on {data['machine']}, "
        f"{data['rounds']} round, torch {data['torch']}, transformers {data['transformers']}."
    )
    return [*parts, made]


def before_table() -> str:
    """What choosing cost before selection was made for many tokens, and what it costs now."""
    before, after = (json.loads(file.read_text()) for file in (BEFORE, SELECTORS))
    counts = [n for n in before["prefill_seconds"] if n in after["prefill_seconds"]]
    lines = []
    for name, rows in before["methods"].items():
        own = after["methods"].get(name, {})
        if any("skipped" in each.get(n, {"skipped": ""}) for each in (rows, own) for n in counts):
            continue
        cells = [
            f"{_seconds(rows[n]['seconds'])} → {_seconds(own[n]['seconds'])}, "
            f"{rows[n]['peak_bytes'] / 2**20:.3g} → {own[n]['peak_bytes'] / 2**20:.3g} MiB"
            for n in counts
        ]
        lines.append([f"`{name}`", *cells])
    note = (
        f"The package at commit {before['commit'][:12]} (transformers {before['transformers']}) and at "
        f"{after['commit'][:12]} (transformers {after['transformers']}), both by "
        f"`{_without_output(after['command'])}`, one round, on {after['machine']}."
    )
    return "\n".join([*table(["method", *(f"{int(n):,} tokens" for n in counts)], lines), "", note])


def long_runs() -> tuple[list[dict[str, Any]], dict[str, dict[int, dict[str, Any]]]]:
    """The runs, and by method and visual tokens what the last run that measured these found."""
    runs = [run for _, run in read_lines(LONG)]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        for name, rows in run["methods"].items():
            measured = {int(count): row for count, row in rows.items() if "skipped" not in row}
            found[name] = dict(sorted({**found.get(name, {}), **measured}.items()))
    return runs, {name: found[name] for name in sorted(found) if len(found[name]) > 1}


def long_table() -> str:
    """Seconds and memory of choosing, by visual tokens, and how the seconds grow."""
    runs, found = long_runs()
    counts = sorted({count for own in found.values() for count in own})
    rows = []
    for name, own in found.items():
        cells = [
            f"{_seconds(own[n]['seconds'])}, {own[n]['peak_bytes'] / 2**20:.3g} MiB" if n in own else "–"
            for n in counts
        ]
        rows.append([f"`{name}`", *cells, f"N^{_growth(own):.1f}"])
    model = runs[0]["model"]
    head = (
        f"Features of {model['tower']}, hidden states of {model['hidden']} dimensions, a quarter kept; growth between "
        "the last two."
    )
    made = [
        f"`{_without_output(run['command'])}` at commit {run['commit'][:12]} on {run['machine']}, torch {run['torch']}"
        for run in runs
    ]
    lines = table(["method", *(f"{count:,}" for count in counts), "growth"], rows)
    return "\n".join([head, "", *lines, "", "Made by " + "; ".join(made) + "."])


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _growth(rows: dict[int, dict[str, Any]]) -> float:
    from math import log

    less, more = list(rows)[-2:]
    return log(rows[more]["seconds"] / rows[less]["seconds"]) / log(more / less)


def draw_speed() -> None:
    """What `seeless plot` draws of the runs that reduce."""
    rows = [row for own in _runs() for row in own if any(r["keep"] != 1.0 for r in own)]
    plot_bench(rows, SPEED_PICTURE, made_of=fingerprint([SPEED]))


def draw_long() -> None:
    """Seconds and memory of choosing against visual tokens, on logarithmic axes."""
    from matplotlib.figure import Figure

    _, found = long_runs()
    figure = Figure(figsize=(13, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, key, scale, label in (
        (left, "seconds", 1.0, "seconds to choose a quarter"),
        (right, "peak_bytes", 2.0**20, "MiB to choose a quarter"),
    ):
        plain_axis(axis)
        axis.set(xscale="log", yscale="log", xlabel="visual tokens", ylabel=label)
        for name, style in styles_of(found).items():
            values = [row[key] / scale for row in found[name].values()]
            axis.plot(list(found[name]), values, label=name, linewidth=1.3, markersize=5, **style)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=9, handlelength=4)
    save(figure, LONG_PICTURE, fingerprint([LONG]))


PICTURES = {SPEED_PICTURE: (SPEED, draw_speed), LONG_PICTURE: (LONG, draw_long)}
