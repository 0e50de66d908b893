"""HiPrune: anchors, neighbours and the rest against lists; both tower layers of a model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, kept, top
from seeless.tower import Tower
from tiny_models import RAGGED, VARIANTS, make_inputs

TOWER = Tower(24, 22, tuple(range(24)), tuple(range(24)), True)


def chosen(shallow, deep, grid, count, alpha, wrap=True):
    """The specification with lists."""
    _, height, width = grid
    n = height * width
    found = set()
    for anchor in top(shallow, min(round(count * alpha / 5), count // 5)):
        row, column = divmod(anchor, width)
        if wrap:
            found |= {min(max(anchor + step, 0), n - 1) for step in (0, -1, 1, -width, width)}
        else:
            near = [(row, column), (row, column - 1), (row, column + 1), (row - 1, column), (row + 1, column)]
            found |= {r * width + c for r, c in near if 0 <= r < height and 0 <= c < width}
    rest = sorted((i for i in range(n) if i not in found), key=lambda i: (-deep[i], i))
    return sorted(found | set(rest[: count - len(found)]))


def context(shallow, deep, grid, count):
    seen = {("all", 8): shallow[:, None], ("all", 22): deep[:, None]}
    return fake_context(count, *shallow.shape, layer=0, grid=grid, vision_attention=seen, tower=TOWER)


@pytest.mark.parametrize(
    ("alpha", "want"),
    [(0.5, [0, 1, 2, 3, 4, 11, 16, 17, 18, 23]), (1.0, [0, 1, 2, 3, 6, 11, 16, 17, 18, 23])],
)
def test_worked_out(alpha, want):
    shallow, deep = torch.zeros(1, 36), torch.arange(36, 0, -1)[None] / 100
    shallow[0, 17], shallow[0, 0] = 1.0, 0.9
    assert kept(sl.HiPrune(keep=10, alpha=alpha).reduce(context(shallow, deep, (1, 6, 6), 10))) == [want]
    assert chosen(shallow[0].tolist(), deep[0].tolist(), (1, 6, 6), 10, alpha) == want


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([(1, 1), (1, 7), (5, 1), (3, 5), (4, 4)]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(),
    st.integers(0, 9999),
    st.data(),
)
def test_any_size(units, sides, alpha, wrap, seed, data):
    visual = sides[0] * sides[1]
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    generator = torch.Generator().manual_seed(seed)
    shallow, deep = (torch.randn(units, visual, generator=generator).softmax(-1) for _ in range(2))
    strategy = sl.HiPrune(keep=count, alpha=alpha, as_released=wrap)
    decision = strategy.reduce(context(shallow, deep, (1, *sides), count))
    for unit in range(units):
        want = chosen(shallow[unit].tolist(), deep[unit].tolist(), (1, *sides), count, alpha, wrap)
        assert kept(decision)[unit] == want and len(want) == count
    assert torch.equal(decision.scores, deep)


def test_layers():
    assert sl.HiPrune(keep=9).looks_into(TOWER) == [("all", 8), ("all", 22)]
    qwen = Tower(32, 31, (7, 15, 23, 31), tuple(range(32)), False)
    assert sl.HiPrune(keep=9).looks_into(qwen) == [("all", 15), ("all", 31)]
    assert sl.HiPrune(keep=9, layer=2).looks_into(TOWER)[0] == ("all", 2)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"alpha": 1.5}, r"alpha=1\.5 is no share"),
        ({"layer": -1}, "layer=-1 is no layer of a vision tower"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.HiPrune(keep=0.5, **knobs)


@torch.no_grad()
def test_on_a_model(tiny):
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.HiPrune(keep=7, alpha=0.8, layer=0)) as run:
        model(**inputs)
    maps = untouched.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    shallow, deep = (maps[layer][0].double().mean((0, 1))[1:].tolist() for layer in (0, -2))
    side = round(len(deep) ** 0.5)
    assert run.report.stages[0].kept[0].tolist() == chosen(shallow, deep, (1, side, side), 7, 0.8)
