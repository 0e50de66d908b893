"""VScan: windows, the rest, merging and the second cut against lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept, mean, top
from seeless.tower import Tower
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

TOWER = Tower(24, 22, tuple(range(24)), tuple(range(24)), True)
NEAR = [3, 1, 2, 9, 4, 0, 8, 7, 5, 6, 1, 2, 0, 9, 3, 4]
FAR = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35]


def chosen(near, far, grid, total, side=4):
    """The specification with lists."""
    _, height, width = grid
    if total >= height * width:
        return list(range(height * width))
    down, across = min(side, height), min(side, width)
    parts = {}
    for i in range(height * width):
        row, column = divmod(i, width)
        parts.setdefault((row * down // height, column * across // width), []).append(i)
    local = []
    for own in parts.values():
        local += sorted(own, key=lambda i: (-near[i], i))[: total // 2 // len(parts)]
    rest = sorted((i for i in range(height * width) if i not in local), key=lambda i: (-far[i], i))
    return sorted(local + rest[: total - total // 2])


def merged(tokens, stay):
    """Values of the tokens that stay."""
    groups = {i: [tokens[i]] for i in stay}
    for i, token in enumerate(tokens):
        if i not in groups:
            likes = {j: cosine(token, tokens[j]) for j in stay}
            best = max(likes.values())
            groups[next(j for j in stay if likes[j] >= best - 1e-12)].append(token)
    return {i: mean(own) for i, own in groups.items()}


def context(near, far, grid, embeds, count=1):
    seen = {("class", 5): near[:, None], ("class", 22): far[:, None]}
    return fake_context(count, *near.shape, layer=0, grid=grid, vision_attention=seen, tower=TOWER, embeds=embeds)


@pytest.mark.parametrize(("total", "want"), [(8, [0, 1, 3, 4, 9, 10, 13, 15]), (10, [0, 1, 3, 4, 9, 10, 11, 13, 15])])
def test_worked_out(total, want):
    near, far = torch.tensor([NEAR]).double() / 100, torch.tensor([FAR]).double()
    decision = sl.VScan(keep=total, expansion=1.0, windows=2).reduce(
        context(near, far, (1, 4, 4), torch.randn(1, 16, 3), total)
    )
    assert kept(decision) == [want] == [chosen(NEAR, FAR, (1, 4, 4), total, 2)]
    assert decision.count == len(want)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([(1, 1), (1, 7), (6, 1), (3, 5), (4, 4)]),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 9999),
    st.data(),
)
def test_any_size(units, sides, side, seed, data):
    visual = sides[0] * sides[1]
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    generator = torch.Generator().manual_seed(seed)
    near, far = (torch.randn(units, visual, generator=generator).softmax(-1).double() for _ in range(2))
    embeds = torch.randn(units, visual, 4, generator=generator, dtype=torch.float64)
    strategy = sl.VScan(keep=count, expansion=1.0, windows=side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seeless.strategies.vscan.PIECE", data.draw(st.sampled_from([1, 2**22])))
        decision = strategy.reduce(context(near, far, (1, *sides), embeds, count))
    for unit in range(units):
        want = chosen(near[unit].tolist(), far[unit].tolist(), (1, *sides), count, side)
        assert kept(decision)[unit] == want
        if count < visual:
            values = decision.values(embeds)[unit]
            for i, value in merged(embeds[unit].tolist(), want).items():
                assert values[i].tolist() == pytest.approx(value)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_the_second_stage(visual, seed):
    attention = torch.randn(2, 3, 1, visual, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    decision = sl.VScan(keep=0.5).reduce(fake_context(1, 2, visual, layer=4, stage_index=1, attention=attention))
    count = max(1, visual // 3)
    assert kept(decision) == [top(own.mean(0)[0].tolist(), count) for own in attention]


def test_budgets_and_layers():
    strategy = sl.VScan(keep=64)
    assert [strategy.layers(depth) for depth in (32, 28)] == [[0, 16], [0, 14]]
    assert strategy.looks_into(TOWER) == [("class", 5), ("class", 22)]
    qwen = Tower(32, 31, (7, 15, 23, 31), tuple(range(32)), False)
    assert strategy.looks_into(qwen) == [("all", 7), ("all", 31)]
    seen = context(*(torch.rand(1, 576) for _ in range(2)), (1, 24, 24), torch.randn(1, 576, 3))
    assert len(kept(strategy.reduce(seen))[0]) == 96  # and 32 before layer 16
    second = fake_context(1, 1, 96, layer=16, stage_index=1, attention=torch.rand(1, 2, 1, 96))
    assert len(kept(strategy.reduce(second))[0]) == 32


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"later": 0.0}, r"later=0\.0 is no share"),
        ({"expansion": 0.0}, r"expansion=0\.0 is not possible"),
        ({"windows": 0}, "windows=0 is not possible"),
        ({"shallow": -2}, "shallow=-2 is no layer"),
        ({"scope": "row"}, "takes crops whole; scope='row' is not possible, use 'crop'"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.VScan(keep=0.5, **knobs)


@torch.no_grad()
def test_on_a_model(tiny):
    """The entry, and the attention of the coming layer in an untouched decoder on the merged tokens."""
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.VScan(keep=5, windows=2, layer=2, shallow=0)) as run:
        model(**inputs)
    maps = untouched.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    near, far = (maps[layer][0, :, 0, 1:].double().mean(0).tolist() for layer in (0, -2))
    states = untouched(**inputs, output_hidden_states=True).hidden_states[0][0]
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    side = round(len(far) ** 0.5)
    entry = chosen(near, far, (1, side, side), 7, 2)
    assert run.report.stages[0].kept[0].tolist() == entry
    for i, value in merged(states[columns].double().tolist(), entry).items():
        states[columns[i]] = torch.tensor(value)
    gone = set(columns.tolist()) - set(columns[entry].tolist())
    stays = [i for i in range(len(states)) if i not in gone]
    short = untouched.model.language_model(inputs_embeds=states[None, stays], output_attentions=True)
    places = [stays.index(int(columns[i])) for i in entry]
    rows = short.attentions[2][0, :, -1][:, places].double().mean(0)
    want = top(rows.tolist(), len(entry) // 3)
    assert run.report.stages[1].kept[0].tolist() == [entry[i] for i in want]
