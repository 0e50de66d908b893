"""`seeless bench`: what strategies save on a model and a machine, and what was promised."""

import re
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeless.cli.console import notice, print_json, print_table, say
from seeless.cli.flags import read_flags, refuse_strangers
from seeless.cli.options import Arch, Attention, Device, Dtype, Layers, Plugins, Scale, asked_budgets, items
from seeless.errors import brief, shortened
from seeless.named.plugins import load_plugins
from seeless.outputs import check_file

if TYPE_CHECKING:
    from seeless.bench.prompts import Workload
    from seeless.eval.sweep import Planned

STRATEGIES, BUDGETS, QUICK_BUDGETS = "fastervlm,vispruner,fastv,pyramiddrop", "0.33,0.22,0.11", "0.22"
ROUNDS, QUICK_ROUNDS, ANSWER, QUICK_ANSWER = 5, 2, "16", "4"
LARGEST = 1 << 14
CACHES = ("dynamic", "static")


def bench(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Hub id, folder, reader or tiny (embedded); reader unless told.")
    ] = None,
    arch: Arch = None,
    scale: Scale = "1",
    layers: Layers = None,
    strategies: Annotated[str, typer.Option(metavar="A,B,C", help="See `seeless list`, guests too.")] = STRATEGIES,
    keep: Annotated[
        str | None, typer.Option(metavar="R,R,...", help=f"Nominal budgets, shares or numbers; {BUDGETS} unless told.")
    ] = None,
    average: Annotated[
        str | None, typer.Option(metavar="R,R,...", help="In place of --keep: what a decoder layer sees on average.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,N,...", help="Requests at once.")] = "1",
    image_size: Annotated[
        str | None, typer.Option(metavar="HxW,...", help="In pixels: 336x336,672x672; what suits --arch unless told.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=256, help="Pictures (or videos) in a request.")] = 1,
    frames: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Videos of so many frames in place of pictures.")
    ] = None,
    prompt: Annotated[str, typer.Option(metavar="N,N,...", help="Tokens of text in a request.")] = "75",
    answer: Annotated[str | None, typer.Option(metavar="N,N,...", help=f"Tokens of it; {ANSWER} unless told.")] = None,
    cache: Annotated[str, typer.Option(metavar="NAME", help="dynamic, static; of answers.")] = "dynamic",
    rounds: Annotated[int | None, typer.Option(min=1, help=f"Runs of each; {ROUNDS} unless told.")] = None,
    processor_time: Annotated[
        bool, typer.Option("--processor-time", help="The CPU's time, where other programs keep it busy, too.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; torch's own number unless told.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    attention: Attention = "sdpa",
    plugin: Plugins = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Add rows to this file, lines of JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One budget, a short answer, two rounds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The rows on stdout as one JSON list.")] = False,
) -> None:
    """Time a model with all its visual tokens and with fewer, and compare with what their FLOPs promise.

    Runs take turns; numbers are medians, ratios are those within a round. Time to the first token includes the tower.
    "efficiency" is the measured speed-up over that of the FLOPs: 1 means that nothing is lost. Other fields of
    strategies are flags, as for `seeless sweep`.
    """
    import torch

    from seeless.bench.loading import load
    from seeless.bench.measure import measure
    from seeless.bench.prompts import Workload
    from seeless.eval.errors import InvalidRequest
    from seeless.eval.sweep import plan
    from seeless.jsonl import append_lines
    from seeless.provenance import provenance

    load_plugins(plugin or [])
    names = items(strategies)
    by, budgets = asked_budgets(keep, average, QUICK_BUDGETS if quick else BUDGETS)
    flags = read_flags(context.args, options=("keep", "average"))
    refuse_strangers(flags, names)
    runs = plan(names, budgets, [0], flags, by)
    if output is not None:
        check_file(output)
    if threads is not None:
        torch.set_num_threads(threads)
    if cache not in CACHES:
        raise typer.BadParameter(f"--cache {shortened(cache)} is none of {', '.join(CACHES)}")
    loaded = load(model, arch, read_scale(scale), layers, device, dtype, attention)
    if processor_time and loaded.model.device.type != "cpu":
        raise InvalidRequest(f"--processor-time is for --device cpu; the model computes on {loaded.model.device}")
    sizes = [loaded.picture] if image_size is None else [read_size(text) for text in items(image_size)]
    workloads = [
        Workload(requests, size, images, shown, text, tokens)
        for requests in map(_number, items(batch))
        for size in sizes
        for shown in ([0] if frames is None else map(_number, items(frames)))
        for text in map(_number, items(prompt))
        for tokens in map(_number, items(answer or (QUICK_ANSWER if quick else ANSWER)))
    ]
    turns = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    about: dict[str, Any] = {
        "model": loaded.name,
        "scale": scale if arch else None,
        "weights": "random" if arch else "own",
    }
    about |= {"depth": layers, "clock": "processor" if processor_time else "wall", "cache": cache}
    about |= {"device": str(loaded.model.device), "dtype": str(loaded.model.dtype).removeprefix("torch.")}
    about |= {"by": by, "attention": attention, "command": shlex.join(["seeless", *sys.argv[1:]]), **provenance()}
    rows: list[dict[str, Any]] = []
    with _Progress(workloads, runs, turns) as progress:
        for workload in workloads:
            progress.next(workload)
            found = [
                {**about, **row}
                for row in measure(
                    loaded.model,
                    loaded.image_processor,
                    workload,
                    runs,
                    turns,
                    progress.step,
                    processor_time=processor_time,
                    cache=cache,
                )
            ]
            rows += found
            if output is not None:
                append_lines(output, *found)
    if as_json:
        print_json(rows)
        return
    print_rows(rows, workloads)
    if output is not None:
        say(f"\n{len(rows)} rows in {output}; a picture: seeless plot {output}")


class _Progress:
    """A bar on stderr, one step per timed run."""

    def __init__(self, workloads: "list[Workload]", runs: "list[Planned]", rounds: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=Console(file=sys.stderr, highlight=False), transient=True)
        self.each = (rounds + 1) * sum(not run.refused for run in runs)
        self.task = self.bar.add_task("", total=self.each * len(workloads))
        self.about, self.number = "", 0

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.stop()

    def next(self, workload: "Workload") -> None:
        """A workload begins."""
        self.bar.update(self.task, completed=self.number * self.each)
        self.about, self.number = _about(workload), self.number + 1

    def step(self, label: str) -> None:
        """A run is timed next."""
        self.bar.update(self.task, advance=1, description=f"{label} · {self.about}")


def _about(workload: "Workload") -> str:
    height, width = workload.picture
    kind = "video" if workload.frames else "picture"
    shown = f"{workload.pictures} {kind}s" if workload.pictures > 1 else f"a {kind}"
    long = f"{workload.frames} frames, " if workload.frames else ""
    about = f"batch {workload.batch}, {shown} of {long}{height} x {width}, {workload.text} tokens of text"
    return f"{about}, {workload.answer} of answer"


def print_rows(rows: list[dict[str, Any]], workloads: "list[Workload]") -> None:
    """A table per workload, and why runs are missing."""
    from dataclasses import asdict

    heads = ["strategy", "keep", "tokens", "first token", "tower", "select", "decoder", "per token", "requests/s"]
    heads += ["peak", "KV cache", "speed-up", "decoder", "FLOPs", "efficiency"]
    for number, workload in enumerate(workloads):
        own = [row for row in rows if row["workload"] == asdict(workload)]
        visual = next(row["tokens"]["visual"] for row in own if "tokens" in row)
        say(f"{chr(10) if number else ''}{_about(workload)}: {visual} visual tokens a request")
        print_table(heads, [_line(row) for row in own if "refused" not in row])
        for reason in dict.fromkeys(f"{row['strategy']}: {row['refused']}" for row in own if "refused" in row):
            notice(f"not run: {reason}")


def _line(row: dict[str, Any]) -> list[str]:
    seconds, parts = row["seconds"], row["seconds"]["parts"]

    def spread(found: dict[str, float]) -> str:
        return f"{_time(found['median'], 4)} ±{50 * (found['high'] - found['low']) / found['median']:.0f} %"

    def took(part: str) -> str:
        return _time(parts[part]["median"])

    later = seconds["later"]
    whole = row["strategy"] == "none"
    return [
        row["strategy"],
        "-" if whole else str(row["keep"]),
        f"{row['tokens']['average']:.0f}",
        spread(seconds["first"]),
        _time(parts["tower"]["median"] + parts["projector"]["median"]),
        "-" if whole else took("selection"),
        took("decoder"),
        "-" if later is None else _time(later["median"]),
        f"{row['requests_per_second']:.3g}",
        f"{row['peak_bytes'] / 2**20:.3g} MiB",
        f"{row['kv_bytes']['after'] / 2**20:.3g} MiB",
        "-" if whole else f"{row['speed_up']['first']:.2f}",
        "-" if whole else f"{row['speed_up']['decoder']:.2f}",
        "-" if whole else f"{row['flops_speed_up']['first']:.2f} / {row['flops_speed_up']['decoder']:.2f}",
        "-" if whole else f"{row['efficiency']['first']:.2f} / {row['efficiency']['decoder']:.2f}",
    ]


def _time(seconds: float, digits: int = 3) -> str:
    """As a table shows it.

    >>> _time(0.2425, 4), _time(0.999), _time(32.449)
    ('242.5 ms', '999 ms', '32.4 s')
    """
    return f"{seconds:.{digits}g} s" if seconds >= 1 else f"{1e3 * seconds:.{digits}g} ms"


def read_scale(text: str) -> Fraction:
    """What `--scale` says."""
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise typer.BadParameter(f"--scale {shortened(text)} is no share; give 1, 1/2 or 0.125, say")
    return share


def read_size(text: str) -> tuple[int, int]:
    """Height and width, of one item of `--image-size`."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    size = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not (0 < size[0] <= LARGEST and 0 < size[1] <= LARGEST):
        raise typer.BadParameter(f"--image-size {brief(text)}: give height x width in pixels, 336x672, say")
    return size


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and int(text) > 0):
        raise typer.BadParameter(f"{brief(text)} is no whole number of at least 1")
    return int(text)
