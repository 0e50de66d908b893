"""PruneVid against its description written with lists: windows, clusters, and what the question looks at."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_videos import plain_asked_for, plain_runs, prunevid_groups
from video_decisions import compare, moving

import seeless as sl
from fake_context import fake_context, kept
from seeless.ops.windows import joined_runs
from tiny_models import VARIANTS, make_inputs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=12))
def test_runs_are_joined(labels):
    first = joined_runs(torch.tensor([labels]))[0].tolist()
    assert first == [a for a, b in plain_runs(labels) for _ in range(a, b + 1)]


@pytest.mark.parametrize(
    ("labels", "windows"),
    [
        ([0, 0, 1, 0, 2, 2, 2, 1, 3, 3], [(0, 1), (2, 7), (8, 9)]),
        ([0, 0, 1, 1, 0, 0], [(0, 1), (2, 3), (4, 5)]),
        ([0, 1, 2, 3], [(0, 3)]),
    ],
)
def test_the_toy_runs(labels, windows):
    assert plain_runs(labels) == windows
    assert joined_runs(torch.tensor([labels]))[0].tolist() == [a for a, b in windows for _ in range(a, b + 1)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.sampled_from([(1, 1), (2, 3), (3, 5), (4, 4)]),
    st.integers(0, 9999),
    st.sampled_from([0.25, 0.5]),
    st.sampled_from([0.5, 0.8]),
    st.sampled_from([0.1, 0.4, 1.0]),
)
def test_both_stages(frames, side, seed, windows, similarity, later):
    size, grid = side[0] * side[1], (frames, *side)
    strategy = sl.PruneVid(windows=windows, similarity=similarity, later=later)
    x, memory = moving(1, grid, seed), {}
    decision = strategy.reduce(fake_context(1, 1, frames * size, grid=grid, layer=0, embeds=x, memory=memory))
    wanted, groups = prunevid_groups(strategy, x[0].view(frames, size, -1).tolist())
    compare(decision, 0, wanted)
    assert decision.count in (None, len(wanted))

    left = torch.tensor(kept(decision))
    attention = torch.rand(1, 2, 3, left.shape[1], generator=torch.Generator().manual_seed(seed))
    from dataclasses import replace

    context = fake_context(1, 1, left.shape[1], layer=2, stage_index=1, attention=attention, memory=memory)
    chosen = strategy.reduce(replace(context, index=left, n_original=frames * size))
    scores = dict(zip(left[0].tolist(), attention[0].amax((0, 1)).tolist(), strict=True))
    assert left[0][chosen.mask[0]].tolist() == plain_asked_for(strategy, groups, scores)


def test_layers_and_defaults():
    strategy = sl.PruneVid()
    assert [strategy.layers(depth) for depth in (32, 28, 6)] == [[0, 11], [0, 10], [0, 2]]
    assert (strategy.past, strategy.keep, strategy.later) == ("trim", None, 0.4)
    assert sl.from_dict(strategy.to_dict()) == strategy and sl.PruneVid(keep=1.0).keeps_all(1)


@pytest.mark.parametrize(
    "knobs", [{"keep": 0.5}, {"keep": 1}, {"windows": 0}, {"clusters": 2}, {"later": 0}, {"layer": 0}], ids=str
)
def test_refused(knobs):
    with pytest.raises(sl.BudgetError, match=next(iter(knobs))):
        sl.PruneVid(**knobs)


@torch.no_grad()
def test_stills_of_which_some_tokens_left_before():
    """All of a still is one group, wherever in it stands what is left."""
    model = VARIANTS[1].build("sdpa")
    inputs = make_inputs(model, VARIANTS[1], [[5, "image:0", 9], [3, "image:1", 4, "image:2", 6]])
    with sl.apply(model, [sl.Uniform(keep=5), sl.PruneVid(layer=3, clusters=1.0, later=0.5)]) as run:
        model(**inputs)
    uniform, first, second = run.report.stages
    assert uniform.n_after == first.n_after == [5, 10] and second.n_after == [2, 4]
    for before, after, scores in zip(first.kept, second.kept, second.scores, strict=True):
        for own in (before < 16, before >= 16):
            best = before[own][scores[own].topk(2).indices] if own.any() else before[own]
            assert {*best.tolist()} <= {*after.tolist()}
