"""Models whose tower is a box that gives features: what asks for its attention is refused before a forward, too."""

import pytest
import torch
from matrix import BY_CLIP, READ_THE_TOWER

import seeless as sl
from seeless.models import describe
from tinies import RAGGED, TINIES, make_inputs, make_pieces

UNREAD = [own for own in TINIES if own.unread]


@pytest.mark.parametrize("own", UNREAD, ids=str)
def test_info_says_which_methods_work(own):
    description = describe(own.build())
    refused = {name for name, reason in description.strategies.items() if reason is not None}
    assert refused >= set(READ_THE_TOWER) and refused - set(READ_THE_TOWER) <= set(BY_CLIP)
    for name in READ_THE_TOWER:
        assert "shows no attention that could be read" in description.strategies[name]
    assert description.visual_tokens is None and "not read" in description.vision_signal


@pytest.mark.parametrize("own", UNREAD, ids=str)
@torch.no_grad()
def test_features_are_there_all_the_same(own):
    """One vector per token, those that the projector takes or gives."""
    seen = []

    class Asking(sl.EntryStrategy):
        tower = ("features",)

        def score(self, ctx):
            seen.append(ctx.vision_features())
            return seen[-1].norm(dim=-1)

    model = own.build("sdpa")
    with sl.apply(model, Asking(keep=0.5)) as run:
        model(**make_inputs(model, own, RAGGED))
    tokens = [[piece.tokens for piece in make_pieces(model, own, row)] for row in RAGGED]
    assert run.report.n_after == [sum(n // 2 for n in row) for row in tokens]
    assert {x.shape[1] for x in seen} == {n for row in tokens for n in row}
    assert all(x.isfinite().all() and x.std() > 0 for x in seen)
    assert run.report.flops_before.tower == 0
