"""What a run must come to: one pass of an untouched model over everything, told who has left by the run's reports."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace

import torch
from fuzz_talk import visual_in
from matrix import INSIDE, PLACEHOLDERS

from layer_loop import decoder_of, in_flow
from oracle import Turn, oracle_of, turn_of
from seeless import families
from seeless.vtr.guest import Guest
from tinies import LAYERS

# What they put in place of the tokens they keep is worked out again, for each alone, in the tests of contracts.
MERGING = (
    *("pool", "visionzip", "prumerge", "prumerge_plus", "fastvid"),
    *("sparsevlm", "flashvid", "holitom", "prunevid", "vscan"),
)


@dataclass
class Prefill:
    """One prefill with pictures.

    Args:
        report: the run's.
        states: by layer, the states `[batch, slots, dim]` that it took in, where a strategy merges.
        start: the column at which the turn begins.
        end: the column behind it.
    """

    report: object
    states: dict[int, torch.Tensor]
    start: int
    end: int


class States:
    """The states that decoder layers take in, behind all seams, until it is closed.

    A layer is also run by strategies that read what is to come; what counts is what it takes in last while it runs.
    """

    def __init__(self, model) -> None:
        self.latest: dict[int, torch.Tensor] = {}
        self.running: set[int] = set()
        self.layers, self.hooks = decoder_of(model).layers, []
        for index, layer in enumerate(self.layers):
            layer.forward = self._noting(index, layer.forward)
            self.hooks.append(layer.register_forward_pre_hook(lambda *call, index=index: self.running.add(index)))
            self.hooks.append(layer.register_forward_hook(lambda *call, index=index: self.running.discard(index)))

    def _noting(self, index: int, below: Callable) -> Callable:
        @wraps(below)
        def forward(*args, **kwargs):
            if index in self.running:
                self.latest[index] = (args[0] if args else kwargs["hidden_states"]).detach()
            return below(*args, **kwargs)

        return forward

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()
        for layer in self.layers:
            del layer.forward


def merges(strategies) -> bool:
    """Whether what is kept differs from what was there, so that states are to be noted."""
    return any(merging(part) for strategy in strategies for part in strategy.parts())


def merging(part) -> bool:
    return part.name in MERGING and getattr(part, "version", "") != "2.0" and not isinstance(part, Guest)


def rows_of(report, rows: list[int]):
    """A report of some of its rows, in another order or several times."""
    stages = [
        SimpleNamespace(
            layer=stage.layer,
            strategy=stage.strategy,
            kept=[stage.kept[row] for row in rows],
            n_before=[stage.n_before[row] for row in rows],
            n_after=[stage.n_after[row] for row in rows],
        )
        for stage in report.stages
    ]
    return SimpleNamespace(stages=stages)


def truth(untouched, strategies, whole: dict, prefills: list[Prefill], **given) -> torch.Tensor:
    """Logits `[batch, seq, vocabulary]` of an untouched model; a dropped token shows those of the last one kept.

    Args:
        strategies: that ran, in the order given to `apply`.
        whole: the inputs of everything at once.
        prefills: with pictures, of the run.
        given: more arguments of the model.
    """
    ids = whole["input_ids"]
    turns = [turn_of(own.report, ids[:, : own.end], PLACEHOLDERS, own.start) for own in prefills]
    values = {}
    for prefill, own in zip(prefills, turns, strict=True):
        if prefill.states:
            for layer in merging_layers(untouched, strategies):
                values.setdefault(layer, []).extend(values_at(layer, prefill, own, whole))
    at_layers = {layer: putting(found) for layer, found in values.items()}
    merged = None
    if 0 in at_layers and families.family_of(untouched.config.model_type).layer_inputs is not None:
        merged = at_layers.pop(0)(None)  # of embeddings, of which what layers take of their own is made
    options = {
        "merged": merged,
        "at_layers": at_layers,
        "tower": next((strategy for strategy in strategies if strategy.name in INSIDE), None),
    }
    with oracle_of(untouched, strategies if prefills else [], turns, whole["attention_mask"], **options):
        logits = untouched(**whole, use_cache=False, **given).logits
    places = carried(whole["attention_mask"].bool(), prefills, turns)
    return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))


def gone_in(turn: Turn, layer: int, length: int) -> torch.Tensor:
    """`[batch, length]` bool: which tokens have left when a layer runs."""
    gone = torch.zeros(len(turn.columns), length, dtype=torch.bool)
    stages = [stage for stage in turn.report.stages if stage.layer <= layer]
    for row, columns in enumerate(turn.columns if stages else []):
        gone[row, columns] = True
        gone[row, columns[stages[-1].kept[row]]] = False
    return gone


def carried(real: torch.Tensor, prefills: list[Prefill], turns: list[Turn]) -> torch.Tensor:
    """`[batch, length]`: the column whose logits each one shows, itself or, of a token that has left, the last before
    it in its turn that has not; where there is none, the first of that turn."""
    places = torch.arange(real.shape[1]).repeat(len(real), 1)
    for prefill, turn in zip(prefills, turns, strict=True):
        own = slice(prefill.start, prefill.end)
        left = (real & ~gone_in(turn, LAYERS - 1, real.shape[1]))[:, own]
        last = torch.where(left, places[:, own], -1).cummax(1).values
        first = torch.where(left, places[:, own], real.shape[1] - 1).amin(1, keepdim=True)
        places[:, own] = torch.where(last < 0, first, last)
    return places


def merging_layers(untouched, strategies) -> list[int]:
    """Where the run itself has to say what it made of the tokens that it kept, since some are merged.

    Where features enter between layers, what they are merged to shows in the layers behind these, too.
    """
    first = [layer for layer, part, _ in in_flow(strategies, LAYERS) if merging(part)]
    injected = families.family_of(untouched.config.model_type).injected is not None
    return [*range(min(first), LAYERS)] if injected else sorted({*first})


def values_at(layer: int, prefill: Prefill, turn: Turn, whole: dict) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Row by row, the columns of visual tokens that are left at one layer, and their states.

    The slots of a row hold what is left of it in order, padded on the left, once any row is cut.
    """
    own, states = slice(prefill.start, prefill.end), prefill.states[layer]
    real, ids = whole["attention_mask"][:, own].bool(), whole["input_ids"][:, own]
    left = real & ~gone_in(turn, layer, whole["input_ids"].shape[1])[:, own]
    cut = any(stage.layer <= layer and stage.n_after != stage.n_before for stage in turn.report.stages)
    found = []
    for row, there in enumerate(left):
        columns = there.nonzero()[:, 0]
        slots = torch.arange(len(columns)) + states.shape[1] - len(columns) if cut else columns
        mine = visual_in(ids[row, columns])
        found.append((row, columns[mine] + prefill.start, states[row, slots[mine]]))
    return found


def putting(found: list[tuple[int, torch.Tensor, torch.Tensor]]) -> Callable:
    """The oracle's way to say so: `states -> (anything -> anything with these values)`."""

    def put(anything: torch.Tensor) -> torch.Tensor:
        new = anything.clone()
        for row, columns, values in found:
            new[row, columns] = values
        return new

    return lambda states: put
