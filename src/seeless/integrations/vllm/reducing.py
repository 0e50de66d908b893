"""From the tokens of some pictures to those that stay: ask the strategy, check what it says, apply it."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from seeless.context import Context, Memory
from seeless.core.checks import asking, check_decision
from seeless.core.images import Image
from seeless.core.units import Layout, Unit
from seeless.core.vision import VisionTap
from seeless.core.vision_table import Vision
from seeless.decision import Decision, Extend, Merge
from seeless.errors import StrategyError
from seeless.integrations.vllm.answers import Answers
from seeless.integrations.vllm.counts import Plan, layout_of, plan, ranks_patches
from seeless.strategy import Strategy


@dataclass(frozen=True, eq=False)
class Kept:
    """What stays of one picture.

    Args:
        tokens: `[kept, dim]`, what enters the decoder.
        places: `[kept]`, their places among the picture's tokens, ascending.
    """

    tokens: torch.Tensor
    places: torch.Tensor


@dataclass(frozen=True)
class _Asked:
    """Units of one size that a strategy is asked about together: their numbers of pictures and of units."""

    strategy: Strategy
    count: int
    promised: int
    units: list[Unit]


def reduce(
    strategies: Sequence[Strategy],
    images: Sequence[Image],
    embeds: Sequence[torch.Tensor],
    width: int,
    tap: VisionTap,
    project: Callable[[torch.Tensor], torch.Tensor],
    axes: int,
) -> list[Kept]:
    """What stays of every picture of one run of the tower.

    Args:
        strategies: one for each picture.
        images: where their tokens lie, numbered through the run.
        embeds: of every picture `[tokens, dim]`, what would enter the decoder, and behind it what is added later.
        width: of what enters it.
        project: the model's projector, for tokens merged before it.
        axes: of the positions, as `Context.axes`.

    Raises:
        StrategyError: a decision is none, or keeps another number of tokens than the prompt has room for.
    """
    layout = layout_of(list(images))
    plans = [plan(strategy, image) for strategy, image in zip(strategies, images, strict=True)]
    device = embeds[0].device
    rows, entering = [own.clone() for own in embeds], [own[:, :width] for own in embeds]
    stays = [[torch.from_numpy(own.others).to(device)] for own in plans]
    wrong = []
    for asked in _groups(strategies, plans, layout):
        decision = _decide(asked, layout, entering, Vision([tap], asked.strategy), axes)
        wrong.append((decision.mask.sum(1) != asked.promised).any())
        values = _values(decision, asked, layout, embeds, Vision([tap], asked.strategy), project)
        order = decision.mask.byte().argsort(dim=1, descending=True, stable=True)[:, : asked.promised]
        for number, unit in enumerate(asked.units):
            tokens = torch.from_numpy(unit.tokens).to(device)
            place = tokens[order[number].to(device)]
            stays[unit.row].append(place)
            if values is not None:
                rows[unit.row][place] = values[number, order[number]].to(rows[unit.row])
    if wrong and bool(torch.stack(wrong).any()):
        raise StrategyError(
            f"{strategies[0].name} kept another number of tokens than its budget says; the prompt has room for exactly "
            "those"
        )
    places = [torch.cat(own).sort().values for own in stays]
    return [Kept(row[place], place) for row, place in zip(rows, places, strict=True)]


def _groups(strategies: Sequence[Strategy], plans: Sequence[Plan], layout: Layout) -> list[_Asked]:
    groups: dict[tuple, list[tuple[int, Unit]]] = defaultdict(list)
    for row, (strategy, own) in enumerate(zip(strategies, plans, strict=True)):
        if not own.units:
            continue
        units = [unit for unit in layout.units(strategy.scope, ranks_patches(strategy)) if unit.row == row]
        for unit, count, promised in zip(units, own.counts, own.promised, strict=True):
            apart = (row, int(unit.tokens[0])) if strategy.one_by_one else None
            key = (repr(strategy), len(unit.tokens), unit.grid, count, promised, apart)
            groups[key].append((row, unit))
    return [
        _Asked(strategies[members[0][0]], key[3], key[4], [unit for _, unit in members])
        for key, members in groups.items()
    ]


def _decide(asked: _Asked, layout: Layout, embeds: list[torch.Tensor], vision: Vision, axes: int) -> Decision:
    visual = len(asked.units[0].tokens)
    index = torch.arange(visual, device=embeds[0].device).expand(len(asked.units), -1)
    context = Context(
        layer=0,
        stage_index=0,
        n_keep=asked.count,
        index=index,
        n_original=visual,
        grid=asked.units[0].grid,
        memory=Memory(),
        sources=Answers(layout, asked.units, embeds, vision),
        axes=axes,
        frames=_frames(layout, asked.units),
    )
    with asking(asked.strategy, "in vLLM"):
        decision = asked.strategy.reduce(context)
    check_decision(asked.strategy, decision, index.shape)
    if isinstance(decision, Extend):
        raise StrategyError(
            f"{type(asked.strategy).__name__} adds tokens, which is possible between decoder layers only"
        )
    return decision


def _frames(layout: Layout, units: Sequence[Unit]) -> tuple[int, int]:
    """How many frames the units have, and how many tokens or places in its grid one of them has, at most."""
    frames, largest = 1, 1
    for unit in units:
        counts = np.bincount(np.maximum(layout.frame(unit.row)[unit.tokens], 0))
        places = int(layout.patch(unit.row)[unit.tokens].max()) + 1
        frames, largest = max(frames, len(counts)), max(largest, int(counts.max()), places)
    return frames, largest


def _values(
    decision: Decision,
    asked: _Asked,
    layout: Layout,
    embeds: Sequence[torch.Tensor],
    vision: Vision,
    project: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor | None:
    """New values of the tokens, `[units, visual, dim]`; None if they keep theirs. What is added to them after later
    layers is merged with the same weights."""
    if not isinstance(decision, Merge):
        return None
    answers = Answers(layout, asked.units, list(embeds), vision)
    old = answers.embeds()
    if decision.features == "hidden" or not vision.taps[0].view.family.projected:
        return decision.values(old)
    new = project(answers.merged_features(decision))
    return torch.where(decision.receives[..., None], new.to(old.dtype), old)
