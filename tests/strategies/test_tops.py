"""TOPS: choices against sums written with lists, at the entry and between layers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import A8, X8, cosine, fake_context, kept, random_tensors, unit_of
from seeless.ops.balance import greedy_balance
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs


def scaled(values, rest, by):
    own = [values[i] for i in rest]
    if by == "mean":
        mean = sum(own) / len(own)
        return {i: values[i] / (mean or 1) for i in rest}
    span = max(own) - min(own)
    return {i: (values[i] - min(own)) / (span or 1) for i in rest}


def chosen_one_by_one(relevance, features, count, diversity=0.5, coverage=0.5, by="mean"):
    n = len(features)
    like = [[cosine(a, b) for b in features] for a in features]
    top = max(relevance)
    chosen = [next(i for i in range(n) if relevance[i] >= top - 1e-12)]
    while len(chosen) < count:
        rest = [i for i in range(n) if i not in chosen]
        nearest = [max(like[j][k] for k in chosen) for j in range(n)]
        apart = [1 - near for near in nearest]
        gains = [sum(max(0.0, like[i][j] - nearest[j]) for j in rest) for i in range(n)]
        r, d, c = (scaled(x, rest, by) for x in (relevance, apart, gains))
        score = {i: r[i] + diversity * d[i] + coverage * c[i] for i in rest}
        best = max(score.values())
        chosen.append(next(i for i in rest if score[i] >= best - 1e-9 * max(1, abs(best))))
    return chosen


def test_worked_out():
    assert greedy_balance(A8, X8, 4, 0.5, 0.5, "mean").tolist() == [[0, 4, 7, 1]]
    assert chosen_one_by_one(A8[0].tolist(), X8[0].tolist(), 4) == [0, 4, 7, 1]
    context = fake_context(4, 1, 8, layer=0, embeds=X8, vision_attention=A8[:, None])
    assert kept(sl.TOPS(keep=2).reduce(context)) == [[0, 1, 4, 7]]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 13),
    st.integers(0, 9999),
    st.sampled_from(["mean", "minmax"]),
    st.sampled_from([(0.5, 0.5), (0.0, 1.0), (0.5, 0.4)]),
    st.data(),
)
def test_any_size_at_the_entry_and_between_layers(units, visual, seed, by, weights, data):
    count = data.draw(st.sampled_from([1, visual, data.draw(st.integers(1, visual))]))
    seen = random_tensors(units, visual, seed)
    later = {"visual": seen["embeds"], "attention": seen["vision_attention"][:, :, None]}
    strategy = sl.TOPS(keep=[count] * 3, diversity=weights[0], coverage=weights[1], scaled=by)
    for layer, tensors in ((0, seen), (3, later)):
        decision = strategy.reduce(fake_context(count, units, visual, layer=layer, **tensors))
        for unit in range(units):
            relevance = seen["vision_attention"][unit].mean(0)
            assert torch.allclose(decision.scores[unit], relevance)
            want = chosen_one_by_one(relevance.tolist(), seen["embeds"][unit].tolist(), count, *weights, by)
            assert kept(decision)[unit] == sorted(want)
            alone = strategy.reduce(fake_context(count, 1, visual, layer=layer, **unit_of(tensors, unit)))
            assert kept(alone) == [kept(decision)[unit]]


def test_nobody_is_chosen_twice_and_equal_tokens_go_by_place():
    for by in ("mean", "minmax"):
        assert greedy_balance(torch.ones(2, 7), torch.ones(2, 7, 3), 7, 0.5, 0.5, by).tolist() == [list(range(7))] * 2
        assert greedy_balance(torch.zeros(1, 5), torch.zeros(1, 5, 3), 3, 0.5, 0.5, by).tolist() == [[0, 1, 2]]


def test_budgets_and_layers():
    def counts(keep, visual, **knobs):
        return [sl.TOPS(keep=keep, **knobs).count(stage, visual) for stage in range(3)]

    assert counts(64, 576) == [128, 64, 16] and counts(1.0, 576) == [576] * 3
    assert counts(0.25, 576) == [288, 144, 36] and counts(0.8, 576) == [576, 460, 115]
    assert counts([512, 281, 77], 1296, layer=[0, 12, 16]) == [512, 281, 77]
    assert sl.TOPS(keep=64, layer=0).count(0, 576) == 64
    assert [sl.TOPS(keep=64).layers(depth) for depth in (32, 40)] == [[0, 12, 24], [0, 15, 30]]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"diversity": -0.1}, r"diversity=-0\.1 is not possible"),
        ({"coverage": math.inf}, "coverage=inf is not possible"),
        ({"scaled": "sum"}, "scaled='sum'"),
        ({"threshold": 0.5}, "takes no threshold"),
        ({"layer": [0, 3]}, "stands for three stages"),
        ({"keep": [0.5, 0.2]}, "gives 2 budgets"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.TOPS(**{"keep": 0.2, **knobs})
    with pytest.raises(sl.BudgetError, match="no room for three stages"):
        sl.TOPS(keep=0.2).layers(2)


@torch.no_grad()
def test_on_a_model(tiny):
    """The entry from the untouched tower; the first layer stage from an untouched decoder on what the entry left."""
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, sl.TOPS(keep=[9, 5, 2], layer=[0, 2, 4])) as run:
        model(**inputs)
    tower = untouched.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    attention = tower.attentions[-2][0, :, 0, 1:].double().mean(0)
    states = untouched(**inputs, output_hidden_states=True).hidden_states[0][0]
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    entry = sorted(chosen_one_by_one(attention.tolist(), states[columns].double().tolist(), 9))
    assert run.report.stages[0].kept[0].tolist() == entry

    stays = [i for i in range(len(states)) if i not in set(columns.tolist())] + columns[entry].tolist()
    stays.sort()
    short = untouched.model.language_model(
        inputs_embeds=states[None, stays], output_hidden_states=True, output_attentions=True
    )
    places = [stays.index(int(columns[i])) for i in entry]
    rows = short.attentions[1][0][:, max(places) + 1 :, :][..., places].double().mean((0, 1))
    want = chosen_one_by_one(rows.tolist(), short.hidden_states[2][0][places].double().tolist(), 5)
    assert run.report.stages[1].kept[0].tolist() == sorted(entry[i] for i in want)
