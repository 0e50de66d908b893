"""Decisions about made-up videos, compared with what lists say of them."""

import pytest
import torch

from fake_context import fake_context, kept


def moving(units, grid, seed, dim=5):
    """Embeddings `[units, visual, dim]`, float64, of videos whose frames partly repeat."""
    frames, size = grid[0], grid[1] * grid[2]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(units, 1, size, dim, generator=generator, dtype=torch.float64)
    step = torch.randn(units, frames, size, dim, generator=generator, dtype=torch.float64)
    moved = torch.rand(units, frames, size, 1, generator=generator, dtype=torch.float64).square() * 0.8
    return (x + (step * moved).cumsum(1)).flatten(1, 2)


def reduced(strategy, x, grid, attention, **more):
    """What a strategy decides at the entry about videos `[units, visual, dim]`."""
    seen = {"vision_attention": attention, **more}
    return strategy.reduce(fake_context(1, *x.shape[:2], grid=grid, layer=0, embeds=x, **seen))


def weights_of(decision, unit):
    """By place that stays, the weights of the old tokens in what it becomes."""
    found = {place: {} for place in kept(decision)[unit]}
    if not hasattr(decision, "source"):
        return {place: {place: 1.0} for place in found}
    for source, slot, weight in zip(decision.source[unit], decision.slot[unit], decision.weight[unit], strict=True):
        if weight:
            own = found[int(slot)]
            own[int(source)] = own.get(int(source), 0.0) + float(weight)
    return {place: own or {place: 1.0} for place, own in found.items()}


def compare(decision, unit, wanted):
    """Whether a unit's decision is what was wanted, to the last weight."""
    have = weights_of(decision, unit)
    assert sorted(have) == sorted(wanted)
    for place, weights in wanted.items():
        assert have[place] == pytest.approx(weights, abs=1e-6), place
