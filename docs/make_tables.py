"""Write the generated parts of README.md and docs/: the tables, and the pictures.

python docs/make_tables.py           # rewrite
python docs/make_tables.py --check   # exit 1 if a page is stale
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "contracts"))

from advice_tables import uses_table
from markdown_table import table
from method_facts import methods_list
from model_types import model_types_summary, model_types_table, newest
from published_tables import published_table
from reader_tables import reader_accuracy, reader_table
from speed_tables import (
    PICTURES,
    before_table,
    efficiency_tables,
    gain,
    long_table,
    memory_table,
    overhead_table,
    wide_list,
)
from study_tables import attention_tables, occlusion_table, overlap_table
from support_tables import support_summary, support_table

from seeless.eval.drawing import drawn_from
from seeless.eval.plot import fingerprint, plot
from seeless.eval.points import NONE, Point, points
from seeless.eval.rows import read_rows
from seeless.jsonl import read_lines
from seeless.vtr.backbones import BACKBONES, OTHER, Backbone

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SUPPORT = ROOT / "docs" / "support.md"
MODELS = ROOT / "docs" / "models.md"
METHODS = ROOT / "docs" / "methods.md"
GUESTS = ROOT / "docs" / "add-a-method.md"
CHOOSING = ROOT / "docs" / "choose.md"
LOOKING = ROOT / "docs" / "analyze.md"
READER = ROOT / "docs" / "reference" / "reader.md"
SWEPT = ROOT / "docs" / "sweep.md"
SWEEP = ROOT / "results" / "sweep.jsonl"
SWEEP_PICTURE = ROOT / "docs" / "sweep.png"
SCENES = "seeless_scenes"
SELECTORS = ROOT / "results" / "selectors.json"
SPEED_PAGE = ROOT / "docs" / "speed.md"
TRAINING = ROOT / "docs" / "train.md"
TRAIN_STEP = ROOT / "results" / "train_step.json"
KEPT = ROOT / "results" / "kept.json"
FINETUNE = ROOT / "results" / "finetune.jsonl"


def sweep_rows() -> list[dict]:
    """The rows of the sweep over all methods; a broken line would leave a hole in the tables."""
    rows, broken = read_rows(SWEEP)
    assert not broken, "; ".join(map(str, broken))
    return rows


def sweep_table(cell: Callable[[Point], str]) -> list[str]:
    """Methods by budgets; where a method did not run, the number of the note that says why."""
    rows = sweep_rows()
    found = {(point.strategy, point.keep): point for point in points(rows) if point.task == SCENES}
    reasons: list[str] = []
    refused: dict[tuple, str] = {}
    for row in rows:
        if "refused" in row:
            reasons += [row["refused"]] if row["refused"] not in reasons else []
            refused[row["strategy"], row["keep"]] = f"[{reasons.index(row['refused']) + 1}]"
    budgets = sorted({row["keep"] for row in rows if row["strategy"] != NONE}, reverse=True)
    lines = []
    for name in dict.fromkeys(row["strategy"] for row in rows if row["strategy"] != NONE):
        cells = [cell(found[name, b]) if (name, b) in found else refused[name, b] for b in budgets]
        lines.append([f"`{name}`", *cells])
    notes = [f"[{number}] {reason}  " for number, reason in enumerate(reasons, 1)]
    return [*table(["method", *(f"{100 * b:.0f} %" for b in budgets)], lines), "", *notes]


def accuracy_table() -> str:
    """Accuracy of the embedded model on the shipped scenes, loyalty and what it costs, per method and budget."""
    rows = sweep_rows()
    (full,) = (point for point in points(rows) if point.strategy == NONE)
    row = next(row for row in rows if row["strategy"] == NONE)
    scores = row["scores"][SCENES]["accuracy"]
    head = (
        f"Right answers in % to {scores['n']} held-out questions · answers in % that are the untouched model's own "
        f"(visual tokens per layer). The untouched model: {100 * full.value:.1f} ({full.tokens:.0f}), 95 % interval "
        f"{100 * scores['low']:.1f} to {100 * scores['high']:.1f}."
    )

    def cell(point: Point) -> str:
        return f"{100 * point.value:.1f} · {100 * point.agreement:.0f} ({point.tokens:.0f})"

    made = (
        f"Made by `{row['command']}` at commit {row['commit'][:12]}, torch {row['versions']['torch']}, transformers "
        f"{row['versions']['transformers']}, lmms-eval {row['versions']['lmms_eval']}; every run, with its "
        "interval, is a line of results/sweep.jsonl. Methods that draw: means over their seeds."
    )
    picture = f"![Accuracy against visual tokens per layer and against FLOPs]({SWEEP_PICTURE.name})"
    return "\n".join([head, "", picture, "", *sweep_table(cell), "", made])


def kinds_table() -> str:
    """The same sweep by kind of question."""
    rows = sweep_rows()
    kinds = ("digit", "colour", "count")
    scores = {kind: {(p.strategy, p.keep): p for p in points(rows, kind)} for kind in kinds}

    def cell(point: Point) -> str:
        values = (100 * scores[kind][point.strategy, point.keep].value for kind in kinds)
        return " / ".join(f"{value:.0f}" for value in values) + f" · {point.kl:.2g}"

    counts = next(row for row in rows if row["strategy"] == NONE)["scores"][SCENES]
    numbers = ", ".join(f"{counts[kind]['n']} ask for a {kind}" for kind in kinds)
    head = (
        f"Right answers in %: which digit / what colour / how many ({numbers}) · mean KL divergence of the first "
        "answer token from the untouched model's, in nats."
    )
    return "\n".join([head, "", *sweep_table(cell)]).rstrip()


def selectors_table() -> str:
    """What choosing costs, per method and number of visual tokens: share of the prefill, and memory."""
    if not SELECTORS.is_file():
        return "Not measured yet: `python -m seeless.bench.selectors --output results/selectors.json`."
    data = json.loads(SELECTORS.read_text())
    prefill, model = data["prefill_seconds"], data["model"]
    shown = {count: f"{int(count):,}" for count in prefill}

    def cell(row: dict) -> str:
        return "–" if "skipped" in row else f"{100 * row['share']:.2g} % ({row['peak_bytes'] / 2**20:.3g} MiB)"

    head = "Time to choose a quarter of the tokens, as a share of the untouched prefill, and the memory it takes (MiB)."
    lines = [["*prefill*", *(f"*{seconds:.2g} s*" for seconds in prefill.values())]]
    reasons = []
    for name, rows in data["methods"].items():
        lines.append([f"`{name}`", *(cell(rows[count]) for count in prefill)])
        missing = dict.fromkeys(row["skipped"] for row in rows.values() if "skipped" in row)
        reasons += [f"`{name}`: {reason}" for reason in missing]
    note = (
        f"Made by `{data['command']}` on {data['machine']}, torch {data['torch']}: a random LLaVA with "
        f"{model['layers']} layers of {model['hidden']}, {data['rounds']} rounds."
    )
    lines = table(["method", *(f"{count} tokens" for count in shown.values())], lines)
    return "\n".join([head, "", *lines, "", note, *([f"Left out: {'; '.join(reasons)}."] if reasons else [])])


def backbones_table() -> str:
    """The defaults of `VTRConfig` per backbone, that is, of the copies of PriorTR's framework."""
    kinds: dict[Backbone, list[str]] = {}
    for kind, backbone in [*BACKBONES.items(), ("all others", OTHER)]:
        kinds.setdefault(backbone, []).append(kind if backbone is OTHER else f"`{kind}`")

    def cells(backbone: Backbone) -> list[str]:
        tokens = backbone.keep_tokens
        last = "with" if backbone.last_row else "without"
        queries = {"auto": "question for PriorTR, else last"}
        return [
            f"`{backbone.strategy}`",
            str(backbone.prune_layer),
            f"{tokens} tokens" if tokens is not None else f"ratio {backbone.keep_ratio}",
            queries.get(backbone.query, backbone.query),
            {0: "the first after the image", 1: "the second"}[backbone.null_row],
            f"{last} the last",
            f"at least {backbone.least}" if backbone.least else "may be none",
        ]

    heads = ["`model_type`", "`strategy`", "K", "budget", "`query_aggregation`", "PriorTR's null token"]
    heads += ["PriorTR's question rows", "tokens a ratio leaves"]
    return "\n".join(table(heads, ([", ".join(names), *cells(b)] for b, names in kinds.items())))


def train_step_table() -> str:
    """What a training step of the mid-size model takes, and how much of the saving promised by FLOPs is reached."""
    data = json.loads(TRAIN_STEP.read_text())
    rows = data["settings"]
    lines = []
    for name, row in rows.items():
        times = [f"{row['seconds']:.1f} s", f"{row['cpu_seconds']:.1f} s", f"{row['peak_memory'] / 2**30:.2f} GiB"]
        lines.append([name, *times, f"{row['flops'] / 1e9:.0f}", f"{row['visual_tokens']:.0f}"])
    own, full = rows["pyramiddrop"], rows["untouched"]
    note = (
        f"FLOPs promise a step {own['promised_speed_up']:.2f} times as fast. By processor time it is "
        f"{own['cpu_speed_up']:.2f} times, {100 * own['cpu_saving_reached']:.0f} % of the promised saving; "
        f"by the clock {own['speed_up']:.2f} times, {100 * own['saving_reached']:.0f} %."
    )
    made = (
        f"Made by `{data['command']}` on {data['machine']}, torch {data['versions']['torch']}: "
        f"{full['weights'] / 1e6:.0f} million weights, {data['batch']} rows of {data['length']} tokens, medians of "
        f"{data['rounds']} rounds."
    )
    heads = ["", "step", "processor time", "peak memory", "GFLOPs", "visual tokens per layer"]
    return "\n".join([*table(heads, lines), "", note, "", made])


def finetune_table() -> str:
    """Held-out accuracy after the same steps from the same start, with and without reduction."""
    rows = [row for _, row in read_lines(FINETUNE)]
    full = [row for row in rows if row["strategy"] == "none"]
    own = [row for row in rows if row["strategy"] == "pyramiddrop"]
    lines = []
    for trained, answers, members, key in (
        ("all tokens", "all tokens", full, "accuracy"),
        ("PyramidDrop", "PyramidDrop", own, "accuracy"),
        ("all tokens", "PyramidDrop", full, "accuracy_reduced"),
    ):
        scores = [100 * row[key]["mean"] for row in members]
        each = ", ".join(f"{score:.1f}" for score in scores)
        seconds, memory = (fmean(row[name] for row in members) for name in ("seconds_per_step", "peak_memory"))
        spent = [f"{seconds:.2f} s", f"{memory / 2**20:.0f} MiB"]
        lines.append([trained, answers, f"{fmean(scores):.1f} ({each})", *spent])
    first = full[0]
    note = (
        f"Made by `{first['command']}`: {first['steps']} steps of {first['batch']} records, "
        f"{first['accuracy']['questions']} held-out questions, PyramidDrop with {own[0]['visual_tokens']:.0f} of "
        f"{first['visual_tokens']:.0f} visual tokens per layer, {first['machine']}."
    )
    heads = ["trained with", "answers with", "right answers in %, mean (each seed)", "step", "peak memory"]
    return "\n".join([*table(heads, lines), "", note])


def kept_caption() -> str:
    """What README's picture shows, and how typical it is."""
    told = json.loads(KEPT.read_text())
    names, count, share = list(told["asked_kept"]), told["drawings"], 100 * told["keep"] / 576
    right = ", ".join(f"`{name}` {told['right'][name]}" for name in names)
    kept = ", ".join(f"`{name}` {100 * told['asked_kept'][name]:.0f} %" for name in names)
    return (
        "The embedded model, and the first held-out drawing that all of them answer rightly (`make pictures`). Of "
        f"{count} the untouched model answers {told['right']['none']} rightly, {right}. With {share:.0f} % of the "
        f"patches they keep, of those that show what is asked about: {kept}."
    )


def fill(text: str, name: str, table: str) -> str:
    """`text` with what stands between the markers of `name` replaced."""
    start, end = f"<!-- {name}: generated by make tables -->", f"<!-- end of {name} -->"
    before, rest = text.split(start)
    after = rest.split(end)[1]
    return f"{before}{start}\n{table}\n{end}{after}"


PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"kept": kept_caption, "gain": gain, "support": support_summary},
    SUPPORT: {"support": support_table},
    SWEPT: {
        "accuracy": accuracy_table,
        "kinds": kinds_table,
        "reader": reader_table,
        "held out": reader_accuracy,
    },
    LOOKING: {"attention": attention_tables, "overlap": overlap_table, "occlusion": occlusion_table},
    READER: {"held out": reader_accuracy},
    GUESTS: {"backbones": backbones_table},
    MODELS: {},
    METHODS: {"methods": methods_list},
    SPEED_PAGE: {
        "efficiency": efficiency_tables,
        "overhead": overhead_table,
        "memory": memory_table,
        "selectors": selectors_table,
        "wide": wide_list,
        "before": before_table,
        "long": long_table,
    },
    CHOOSING: {
        "uses": uses_table,
        "many": lambda: published_table("eadp-1"),
        "visual": lambda: published_table("vispruner-page"),
        "more": lambda: published_table("clse-1"),
    },
    TRAINING: {"step": train_step_table, "finetune": finetune_table},
}
if newest():  # other releases of transformers have other types of models
    PAGES[README]["summary of model types"] = model_types_summary
    PAGES[MODELS]["model types"] = model_types_table


def main() -> None:
    texts = {page: page.read_text() for page in PAGES}
    fresh = dict(texts)
    for page, tables in PAGES.items():
        for name, made in tables.items():
            fresh[page] = fill(fresh[page], name, made())
    if "--check" in sys.argv:
        stale = [str(page.relative_to(ROOT)) for page in PAGES if fresh[page] != texts[page]]
        for drawn, source in {SWEEP_PICTURE: SWEEP, **{own: made_of for own, (made_of, _) in PICTURES.items()}}.items():
            if not drawn.is_file() or drawn_from(drawn) != fingerprint([source]):
                stale.append(str(drawn.relative_to(ROOT)))
        sys.exit(f"{', '.join(stale)} stale: run make tables" if stale else 0)
    for page, text in fresh.items():
        page.write_text(text)
    plot(sweep_rows(), SWEEP_PICTURE, made_of=fingerprint([SWEEP]))
    for _, draw in PICTURES.values():
        draw()


if __name__ == "__main__":
    main()
