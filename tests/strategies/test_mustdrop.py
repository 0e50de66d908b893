"""MustDrop: flat windows, the key set, what the text looks at, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_patches import plain_filter, plain_windows

import seeless as sl
from fake_context import fake_context, fake_patches, kept
from seeless.tower import Tower

ROWS = [[0.30, 0.02, 0.05, 0.001], [0.10, 0.04, 0.05, 0.001]]
CLIP = Tower(layers=24, made=22, whole=tuple(range(24)), attending=tuple(range(24)), class_token=True)


def test_a_window_of_the_specification():
    """Eight vectors (1, 0) and one (0, 1): a mean cosine of 0.777778."""
    hidden = torch.tensor([[[1.0, 0.0]] * 8 + [[0.0, 1.0]]])
    context = fake_patches(9, 1, (3, 3), layer=1, hidden=hidden)
    assert kept(sl.MustDrop().leave(context)) == [list(range(9))]
    assert kept(sl.MustDrop(flat=0.7778).leave(context)) == [list(range(9))]
    merge = sl.MustDrop(flat=0.7777).leave(context)
    assert kept(merge) == [[8]]
    assert merge.values(hidden)[0, 8].tolist() == pytest.approx([0.888889, 0.111111], abs=1e-6)


@pytest.mark.parametrize(
    ("total", "largest", "dropped"), [(0.05, 0.03, {3}), (0.2, 0.03, {3}), (0.2, 0.06, {1, 2, 3}), (1.0, 0.0, set())]
)
def test_the_filter_of_the_specification(total, largest, dropped):
    assert set(range(4)) - set(plain_filter(ROWS, [], total, largest)) == dropped
    context = fake_context(
        *(4, 1, 4),
        layer=3,
        attention=torch.tensor(ROWS)[None, None],
        text_embeds=torch.zeros(1, 2, 1),
        prepared=torch.zeros(1, 4, dtype=torch.bool),
    )
    assert set(range(4)) - set(kept(sl.MustDrop(total=total, largest=largest).reduce(context))[0]) == dropped


@given(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8), st.sampled_from([2, 3]), st.data())
@settings(max_examples=20)
def test_windows_are_those_of_lists(pictures, height, width, side, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    hidden = torch.randn(pictures, height * width, 4, generator=generator) + 1
    decision = sl.MustDrop(window=side, flat=0.3).leave(fake_patches(99, pictures, (height, width), hidden=hidden))
    for picture in range(pictures):
        windows = plain_windows(hidden[picture].double().tolist(), height, width, side, 0.3)
        gone = {place for window in windows for place in window[:-1]}
        assert kept(decision)[picture] == [i for i in range(height * width) if i not in gone]
        if isinstance(decision, sl.Merge):
            values = decision.values(hidden)[picture]
            for window in windows:
                torch.testing.assert_close(values[window[-1]], hidden[picture, window].mean(0))
            others = [i for i in kept(decision)[picture] if i not in [window[-1] for window in windows]]
            assert torch.equal(values[others], hidden[picture, others])


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 70), st.data())
@settings(max_examples=15)
def test_key_set_and_filter_are_those_of_lists(units, visual, text, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    total, largest = data.draw(st.sampled_from([(0.001, 0.001), (0.08, 0.02), (0.2, 0.2)]))
    looks = torch.rand(units, 2, visual, generator=generator)
    stays = torch.rand(units, visual, generator=generator) < 0.7
    stays[:, 0] = True
    strategy = sl.MustDrop(total=total, largest=largest, key_share=0.3)
    assert strategy.looks_into(CLIP) == [("class", 23)]
    key = strategy.prepare(
        fake_context(99, units, visual, layer=0, tower=CLIP, tower_stays=stays, vision_attention=looks)
    )
    attention = torch.randn(units, 2, text, visual, generator=generator).softmax(-1)
    context = fake_context(
        *(99, units, visual), layer=3, attention=attention, text_embeds=torch.zeros(units, text, 1), prepared=key
    )
    for unit, decided in enumerate(kept(strategy.reduce(context))):
        alive = stays[unit].nonzero()[:, 0].tolist()
        mean = looks[unit].double().mean(0).tolist()
        chosen = sorted(alive, key=lambda j: -mean[j])[: math.ceil(0.3 * len(alive))]
        assert key[unit].nonzero()[:, 0].tolist() == sorted(chosen)
        rows = attention[unit].double().mean(0).tolist()
        assert decided == plain_filter(rows, chosen, total, largest)


def test_a_key_set_of_forty_seven():
    stays, looks = torch.ones(1, 576, dtype=torch.bool), torch.rand(1, 4, 576)
    context = fake_context(576, 1, 576, layer=0, tower=CLIP, tower_stays=stays, vision_attention=looks)
    assert sl.MustDrop().prepare(context).sum() == 47


def test_layers():
    assert sl.MustDrop().layers(32) == [0, 3, 7, 11, 15]
    assert sl.MustDrop().layers(28) == [0, 3, 6, 10, 13]
    assert sl.MustDrop(layer=[2, 5]).layers(6) == [0, 2, 5]
    with pytest.raises(sl.BudgetError, match="outside this model"):
        sl.MustDrop(layer=[2, 6]).layers(6)


@pytest.mark.parametrize(
    "knobs",
    [
        *({"keep": 0.5}, {"average": 0.5}, {"window": 1}, {"key_share": 0.0}, {"key_share": 1.5}, {"threshold": 0.1}),
        *({"layer": []}, {"layer": [0, 3]}, {"layer": [7, 3]}, {"scope": "row"}),
    ],
)
def test_impossible_fields_are_refused(knobs):
    with pytest.raises(sl.BudgetError):
        sl.MustDrop(**knobs)
