"""What one case is, drawn from one integer: a model, strategies, a conversation, and how it is run."""

from dataclasses import asdict, dataclass, field
from pprint import pformat
from random import Random
from typing import Any

from fuzz_families import FAMILIES, IN_FLOAT32, mrope, possible, recurrent
from fuzz_fields import ENTRY, LAYER, TOWER, TWO_STAGES, Spec, draw_router, draw_strategy, draw_vtr
from test_training import CHECKPOINTING

from tinies import Tiny

Rows = list[list[int | str]]
MODES = ("by hand",) * 10 + ("generate",) * 8 + ("train",) * 2
ANSWERS = ("greedy",) * 4 + ("beams", "sample", "several", "no cache", "static", "chunks", "lookup", "again", "again")


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        turns: rows of every turn of the conversation, as `make_inputs` takes them; the first has most of the pictures.
        padding: on which side each turn is padded.
        columns: of padding that all rows of the first turn have more.
        options: what is particular to the mode; "fresh" has attention compared with the kernel anew, as in a process's
            first forward.
    """

    seed: int
    family: str
    backend: str
    dtype: str
    strategies: list[Spec]
    turns: list[Rows]
    padding: list[str]
    columns: int
    mode: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return pformat(asdict(self), sort_dicts=False, width=120)


def draw(seed: int) -> Case:
    """The case of a number; the same one wherever the same families are there."""
    r = Random(seed)
    tiny = r.choice(FAMILIES)
    mode, dtype = r.choice(MODES), r.choice(["float32"] * 5 + ["float64"] * 4 + ["bfloat16"])
    backend = r.choice(["eager", "sdpa", "sdpa", "fused"])
    if dtype == "float64" and tiny.name in IN_FLOAT32:
        dtype = "float32"
    if dtype != "float32" and backend == "eager":  # a padded row's softmax is nan
        backend = "sdpa"
    if backend not in (*tiny.backends, "fused"):
        backend, dtype = "eager", "float32"
    names = possible(tiny, backend, tiny.kinds) or ["uniform"]
    if r.random() < 0.15:
        strategies, rows = draw_even(r, names, mrope(tiny))
    else:
        strategies, rows = draw_strategies(r, names, mrope(tiny)), draw_rows(r, tiny)
    columns = r.choice([0, 0, 0, 0, 1, 5])
    if mode == "by hand":
        turns, options = draw_turns(r, tiny, rows)
        if backend == "fused" and options["positions"] == "gaps":  # taken for packed sequences by kernels of its kind
            options["positions"] = "shifted"
    elif mode == "generate":
        turns, options = [rows], draw_answer(r, tiny)
    else:
        turns, options = [rows], {"checkpointing": r.choice(CHECKPOINTING), "fresh": False}
    if options.get("positions") == "gaps" and options["mask"] == "none":  # without a mask they say what is packed
        options["mask"] = "long"
    if backend == "fused":  # which reads no static cache
        options |= {
            name: other for name, other in (("cache", "given"), ("how", "greedy")) if options.get(name) == "static"
        }
    sides = [r.choice(["left", "left", "right"]) for _ in turns]
    if mode == "generate":
        sides = ["left"]
    if options.get("how") == "lookup":  # for a single prompt, without padding
        turns, columns = [rows[:1]], 0
    options["inference_mode"] = mode != "train" and r.random() < 0.3
    return Case(seed, tiny.name, backend, dtype, strategies, turns, sides, columns, mode, options)


def draw_strategies(r: Random, names: list[str], axes: bool) -> list[Spec]:
    """One strategy, or several that meet in one forward: in the tower, at the entry, between layers."""

    def some(of: tuple[str, ...]) -> list[Spec]:
        found = [name for name in of if name in names]
        return [draw_strategy(r, r.choice(found), axes)] if found else []

    kind = r.random()
    if kind < 0.45:
        found = some((*LAYER, *ENTRY, *TOWER, *TWO_STAGES))
        for _, fields in found:
            if not isinstance(fields.get("keep", []), list) and r.random() < 0.1:
                fields["average"] = fields.pop("keep")
        return found
    if kind < 0.55 and (router := draw_router(r, names, axes)) is not None:
        return [router]
    if kind < 0.62 and (vtr := draw_vtr(r, names)) is not None:
        return [vtr]
    found = some(TOWER) if r.random() < 0.3 else []
    for _ in range(r.choice([0, 1, 1, 2])):
        found += some(ENTRY)
    for _ in range(r.choice([1, 1, 2, 3])):
        found += some(LAYER)
    if r.random() < 0.15:
        found += some(TWO_STAGES)
    r.shuffle(found)
    return found or some(LAYER)


def draw_rows(r: Random, tiny: Tiny) -> Rows:
    """A ragged batch; some rows have several pictures, some none."""
    rows: Rows = []
    for _ in range(r.choice([1, 1, 2, 2, 3, 4])):
        row: list[int | str] = [r.randint(1, 6)] if r.random() < 0.85 else []
        for _ in range(r.choice([0, 1, 1, 1, 2, 2, 3])):
            row.append(f"{draw_kind(r, tiny)}:{r.randint(0, 7)}")
            if r.random() < 0.8:
                row.append(r.randint(1, 5))
        if r.random() < 0.9 or not row:
            row.append(r.randint(1, 8))
        rows.append(row)
    if not any(isinstance(part, str) for row in rows for part in row) and r.random() < 0.9:
        rows[0] = ["image:0", 3, *rows[0]]
    return rows


def draw_kind(r: Random, tiny: Tiny) -> str:
    return "video" if "video" in tiny.kinds and r.random() < 0.4 else "image"


def draw_even(r: Random, names: list[str], axes: bool) -> tuple[list[Spec], Rows]:
    """A cut at the entry to so many tokens of every picture, and rows of several lengths that it makes equally long."""
    own = r.choice([name for name in ("random", "uniform", "divprune", "pool", "vidcom2") if name in names])
    fields = {
        "keep": r.choice([1, 2, 3]),
        "scope": "crop" if own == "pool" else "image",
        "past": r.choice(["keep", "trim"]),
        "positions": r.choice(["keep", None] if axes else ["keep", "renumber", None]),
    }
    found: list[Spec] = [(own, fields)]
    if r.random() < 0.5:
        found.append(draw_strategy(r, r.choice([name for name in LAYER if name in names]), axes))
    start, end, count = r.randint(1, 5), r.randint(1, 6), r.choice([1, 1, 2])
    pictures = [[f"image:{r.randint(0, 7)}" for _ in range(count)] for _ in range(r.choice([1, 2, 2, 3]))]
    return found, [[start, *own, end] for own in pictures]


def draw_turns(r: Random, tiny: Tiny, rows: Rows) -> tuple[list[Rows], dict[str, Any]]:
    """A conversation that is run turn by turn: text before the pictures, text behind them in pieces, pictures again."""
    batch, turns = len(rows), [rows]
    cache = r.choice(["own", "own", "given", "given" if recurrent(tiny) else "keeps", "static", "none"])
    apart = tiny.name.startswith("paligemma")  # sees all of its first turn both ways, and nothing of later ones
    if cache != "none":
        if r.random() < 0.15 and not apart:
            turns.insert(0, [[r.randint(1, 5)]] * batch)
        for _ in range(r.choice([0, 1, 2, 3, 4])):
            if r.random() < 0.12 and not apart:
                seed = r.randint(0, 7)
                turns.append([[r.randint(1, 3), f"{draw_kind(r, tiny)}:{seed}", 4]] * batch)
            elif r.random() < 0.15:
                turns.append([[r.randint(1, 4)] for _ in range(batch)])
            else:
                turns.append([[r.choice([1, 1, 1, 2, 3, 5])]] * batch)
    between = {number: r.choice(["copy", "crop", "reorder"]) for number in range(1, len(turns)) if r.random() < 0.15}
    later = [number for number, own in enumerate(turns) if any(isinstance(part, str) for row in own for part in row)]
    for number in [number for number, what in between.items() if what == "reorder" and number <= max(later, default=0)]:
        del between[number]  # pictures to come are in the order of the rows
    places = ["none", "none", "real", "real", "shifted", "gaps"]
    if mrope(tiny):  # the stock models number later turns by themselves only in `generate`
        places = ["whole"] if len(turns) > 1 else ["none", "whole"]
    return turns, {
        "cache": cache,
        "positions": r.choice(places),
        "mask": r.choice(["long", "long", "long", "bool", "none"]),
        "between": between,
        "embeds": (len(turns) > 1 or not mrope(tiny)) and r.random() < 0.1,  # else positions are not given
        "logits": r.choice([0, 0, 0, 1, 3]),
        "alone": r.random() < 0.3,
        "fresh": r.random() < 0.5,
    }


def draw_answer(r: Random, tiny: Tiny) -> dict[str, Any]:
    """How `generate` is asked."""
    how = r.choice(ANSWERS)
    text = mrope(tiny) or tiny.name.startswith("paligemma") or r.random() < 0.5  # others see no pictures in later turns
    return {
        "how": "greedy" if how == "lookup" and recurrent(tiny) else how,
        "tokens": r.randint(1, 5),
        "beams": r.choice([2, 3]),
        "chunk": r.randint(2, 12),
        "more": [r.randint(1, 5)] if text else [3, f"{draw_kind(r, tiny)}:{r.randint(0, 7)}", 4],
        "fresh": r.random() < 0.5,
    }
