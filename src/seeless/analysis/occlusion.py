"""Occlusion: what an answer loses when one region of the picture is dropped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from seeless import models
from seeless.analysis.gathering import Gathered, Measured
from seeless.analysis.overlap import kept_by_layer, reports_of
from seeless.analysis.study import Seen, Study, as_json, percent
from seeless.api import apply
from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import InputError
from seeless.report import Report
from seeless.strategy import EntryStrategy, Positions, Scope, Strategy
from seeless.tower import TowerSignal

ANSWER = 16  # tokens of an answer, at most
AT_ONCE = 16  # regions in a batch; half as many where a GPU has no room for them, and so on
GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
Inputs = Mapping[str, Any]


class Without(EntryStrategy):
    """Drop, of every row of a batch, the visual tokens that are named; the others keep their positions.

    Args:
        gone: `[rows, visual]`, bool, the tokens that leave. None: none do.
        found: takes the "grid" of the tokens, (frames, height, width), None where they form none.
    """

    keep: Budget = 1.0
    gone: Any = field(default=None, kw_only=True, repr=False)
    found: Any = field(kw_only=True, repr=False)
    scope: Scope = field(default="row", kw_only=True)
    newlines: bool = field(default=True, kw_only=True)
    own_positions: ClassVar[Positions | tuple[Positions, ...]] = "keep"
    adaptive: ClassVar[bool] = True
    tower: ClassVar[tuple[TowerSignal, ...] | None] = ()

    def keeps_all(self, stage_index: int) -> bool:
        return False

    def select(self, ctx: Context) -> Keep:
        self.found["grid"] = ctx.grid
        if self.gone is None:
            return Keep(torch.ones_like(ctx.index, dtype=torch.bool))
        if tuple(self.gone.shape) != tuple(ctx.index.shape):
            raise InputError(
                f"tokens to drop are named for {list(self.gone.shape)} [rows, visual], the prompts have "
                f"{list(ctx.index.shape)}; give prompts with one picture each, alike"
            )
        return Keep(~self.gone.to(ctx.index.device))


@dataclass(frozen=True, eq=False)
class Forced:
    """An answer that a model was made to give.

    Args:
        log_likelihood: `[rows]`, of the answer, the sum over its tokens, in nats, float64.
        own: `[rows]`, whether each of its tokens is the most likely one after those before it, so that the model gives
            it by itself, greedily.
    """

    log_likelihood: np.ndarray
    own: np.ndarray


class Occlusion(Study):
    """The drop of the log-likelihood of an answer when one region of the picture is dropped, region by region.

    Formula: with y the untouched model's greedy answer, of at most 16 tokens, and R a region, loss(R) = log p(y | all
    tokens) - log p(y | all but R), in nats. Regions are squares of `region` x `region` tokens, smaller at the right
    and lower edge of a grid that they do not fill. They leave where tokens enter the decoder, and no pixel changes:
    the other tokens have seen them in the tower. `changed` says whether the greedy answer is another one.

    Of methods it says how much of the loss lies where they keep tokens in the last layer: of the sum over all tokens of
    max(0, loss of its region), the share of those that are kept; beside it the share of the tokens that are kept, which
    is what a choice by chance has.

    Args:
        region: tokens along a side.
        methods: by budget as it is written, and name; the same names for each budget, or no budget at all.

    Raises:
        InputError: a region has no token.
    """

    name: ClassVar[str] = "occlusion"
    all_rows: ClassVar[bool] = False

    def __init__(self, region: int = 2, methods: Mapping[str, Mapping[str, Strategy]] | None = None) -> None:
        if region < 1:
            raise InputError(f"region={region} has no token; give 1 or more tokens along a side")
        self.region, self.methods = region, methods or {}
        self.names = list(next(iter(self.methods.values()), {}))

    def layers(self, readable: Sequence[int]) -> list[int]:
        return []

    def measure(self, seen: Seen, layers: Sequence[int]) -> Measured:
        model, inputs = seen.model, seen.inputs
        if (rows := len(inputs["input_ids"])) != 1:
            raise InputError(f"{rows} prompts were given; study them one by one")
        answer, (height, width) = greedy_answer(model, inputs), grid_of(model, inputs)
        whole = force(model, inputs, answer)
        regions = regions_of(height, width, self.region)
        down, across = -(-height // self.region), -(-width // self.region)
        forced = without(model, inputs, answer, regions)
        loss = (whole.log_likelihood[0] - forced.log_likelihood).reshape(down, across)
        pooled = {
            "occlusion/loss": loss,
            "occlusion/changed": (~forced.own).reshape(down, across),
            "occlusion/answer": whole.log_likelihood,
        }
        of_token = np.maximum(loss.reshape(-1), 0)[regions.numpy().argmax(0)]
        for budget, reports in reports_of(seen, self.methods).items():
            shares = [_kept_share(of_token, report, models.decoder_depth(model)) for report in reports]
            pooled[f"occlusion/kept {budget}"] = np.array(shares)
        return Measured(pooled=pooled, facts={"visual tokens": height * width, "grid": [height, width]})

    def numbers(self, gathered: Gathered) -> dict[str, Any]:
        """Maps of every picture in their order, and means; per budget and method what is kept of the loss."""
        loss, changed = gathered.values("occlusion/loss"), gathered.values("occlusion/changed")
        kept: dict[str, Any] = {}
        for budget in self.methods:
            own = gathered.values(f"occlusion/kept {budget}")
            known = ~np.isnan(own[:, :, 0]).all(1)  # of pictures that lose anything
            means = own[known].mean(0) if known.any() else np.full(own.shape[1:], np.nan)
            kept[budget] = [
                {"method": name, "loss": as_json(mean[:1])[0], "tokens": as_json(mean[1:])[0]}
                for name, mean in zip(self.names, means, strict=True)
            ]
        return {
            "region": self.region,
            "log_likelihood": as_json(gathered.values("occlusion/answer")[:, 0]),
            "loss": as_json(loss),
            "changed": changed.astype(bool).tolist(),
            "mean_loss": as_json(loss.mean(0)),
            "share_changed": as_json(changed.mean(0)),
            "kept": kept,
        }

    def table(self, numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
        region = self.region
        rows = [["answers that are others then", percent(float(np.mean(numbers["share_changed"]))), ""]]
        for budget, methods in numbers["kept"].items():
            for own in methods:
                told = [percent(own["loss"]), percent(own["tokens"])]
                rows.append([f"of what they lose, where {own['method']}, keep {budget}, keeps", *told])
        return [f"one region of {region} x {region} tokens is dropped", "", "tokens kept"], rows

    def draw(self, gathered: Gathered, folder: Path, ending: str) -> list[Path]:
        from seeless.analysis.drawing import draw_occlusion

        return draw_occlusion(self.numbers(gathered), gathered.samples, folder, ending)


def regions_of(height: int, width: int, side: int) -> torch.Tensor:
    """`[regions, visual]`, bool: which tokens of a grid lie in each square of it, from left to right and down.

    >>> regions_of(2, 3, 2).int().tolist()
    [[1, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 1]]
    """
    row, column = torch.arange(height)[:, None] // side, torch.arange(width)[None] // side
    number = (row * -(-width // side) + column).reshape(-1)
    return torch.arange(int(number.max()) + 1)[:, None] == number[None]


@torch.inference_mode()
def grid_of(model: nn.Module, inputs: Inputs) -> tuple[int, int]:
    """Height and width in tokens of the one picture of a prompt.

    Raises:
        InputError: there is none, or its tokens form no grid (a picture that is cut into tiles, a video).
    """
    found: dict[str, Any] = {}
    with apply(model, Without(found=found)):
        model(**inputs, use_cache=False)
    grid = found.get("grid")
    if grid is None or grid[0] != 1:
        raise InputError(
            "the visual tokens of this prompt form no single grid, so it has no regions; give one picture that the "
            "model does not cut into tiles: a small one, with --size, or another model"
        )
    return grid[1], grid[2]


@torch.inference_mode()
def greedy_answer(model: Any, inputs: Inputs) -> torch.Tensor:
    """The ids of the untouched model's greedy answer, `[tokens]`; its end is one of them where it comes."""
    ids = model.generate(**inputs, max_new_tokens=ANSWER, **GREEDY)
    return ids[0, inputs["input_ids"].shape[1] :]


def without(model: Any, inputs: Inputs, answer: torch.Tensor, regions: torch.Tensor) -> Forced:
    """The answer when each of the regions `[regions, visual]` is dropped, several in a batch."""
    at_once, found, start = AT_ONCE, [], 0
    while start < len(regions):
        some = regions[start : start + at_once]
        try:
            with apply(model, Without(gone=some, found={})):
                found.append(force(model, inputs, answer, len(some)))
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
            at_once //= 2
            torch.cuda.empty_cache()
            continue
        start += len(some)
    return Forced(*(np.concatenate([getattr(one, name) for one in found]) for name in ("log_likelihood", "own")))


@torch.inference_mode()
def force(model: Any, inputs: Inputs, answer: torch.Tensor, rows: int = 1) -> Forced:
    """Have a model give an answer to a prompt, `rows` times in a batch, each token after those before it.

    It is decoded step by step, as an answer of its own is, so that every model does with it what it does with its own.
    """
    repeated = {name: torch.cat([value] * rows) if torch.is_tensor(value) else value for name, value in inputs.items()}
    start = inputs["input_ids"].shape[1]

    def only(_: int, ids: torch.Tensor) -> list[int]:
        return [int(answer[len(ids) - start])]

    out = model.generate(
        **repeated,
        max_new_tokens=len(answer),
        prefix_allowed_tokens_fn=only,
        output_logits=True,
        return_dict_in_generate=True,
        **GREEDY,
    )
    logits = torch.stack(out.logits, 1).double()  # as the model gave them, [rows, tokens, vocabulary]
    picked = logits.log_softmax(-1)[:, range(len(answer)), answer].sum(1)
    own = (logits.argmax(-1) == answer).all(1)
    return Forced(picked.cpu().numpy(), own.cpu().numpy())


def _kept_share(of_token: np.ndarray, report: Report, depth: int) -> tuple[float, float]:
    """Of the loss of all tokens and of their number, what a method keeps; nan of no loss."""
    kept = sorted(kept_by_layer(report, depth)[-1])
    total = of_token.sum()
    return float(of_token[kept].sum() / total) if total > 0 else float("nan"), len(kept) / len(of_token)
