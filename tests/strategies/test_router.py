"""Router: the same as its members in a list, and what it refuses."""

import json

import pytest
import torch

import seeless as sl
from seeless import models
from tinies import RAGGED, TINIES, make_inputs

LLAVA, QWEN3 = TINIES[0], next(own for own in TINIES if own.name == "qwen3_vl")


def outcome(model, strategies, inputs):
    with sl.apply(model, strategies) as run:
        out = model.generate(
            **inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        logits = model(**inputs).logits
    stages = [(s.layer, s.strategy, [k.tolist() for k in s.kept], s.n_before, s.n_after) for s in run.report.stages]
    return logits, torch.stack(out.logits), out.sequences, stages


PAIRS = [
    (sl.Router({3: sl.PriorTR(keep=0.5), 5: sl.FastV(keep=0.2)}), [sl.PriorTR(0.5, layer=3), sl.FastV(0.2, layer=5)]),
    (sl.Router({0: sl.VisPruner(keep=0.6), 2: sl.FastV(keep=4)}), [sl.VisPruner(0.6), sl.FastV(4)]),
    (
        sl.Router({4: sl.PyramidDrop(keep=3, layer=1), 0: sl.Random(keep=9), 1: sl.PriorTR2F(keep=6)}),
        [sl.Random(9), sl.PriorTR2F(6, layer=1), sl.PyramidDrop(keep=3, layer=4)],
    ),
]


@pytest.mark.parametrize("own", [LLAVA, QWEN3], ids=str)
@pytest.mark.parametrize(("router", "listed"), PAIRS, ids=["layers", "entry", "three"])
@torch.no_grad()
def test_a_router_is_the_list_of_its_members(tiny, own, router, listed):
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)
    got, want = outcome(model, router, inputs), outcome(model, listed, inputs)
    assert all(torch.equal(a, b) for a, b in zip(got[:3], want[:3], strict=True)) and got[3] == want[3]
    assert [stage[1] for stage in got[3]] == [strategy.name for strategy in listed]
    assert router.parts() == listed and router.layers(6) == [stage[0] for stage in got[3]]
    more = [*listed, sl.FastV(keep=2, layer=5)]
    if router is not PAIRS[0][0]:  # a router may itself be one of a list
        assert outcome(model, [router, more[-1]], inputs)[3] == outcome(model, more, inputs)[3]


@torch.no_grad()
def test_entry_and_layer_strategies_compose_in_a_list(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, [sl.FastV(keep=0.25), sl.VisPruner(keep=0.5)]) as run:
        model(**inputs)
    first, second = run.report.stages
    assert (first.layer, first.strategy, second.layer, second.strategy) == (0, "vispruner", 2, "fastv")
    assert first.n_after == second.n_before == [8, 16, 0, 8] and second.n_after == [4, 8, 0, 4]
    with sl.apply(model, sl.VisPruner(keep=0.5)) as alone:
        model(**inputs)
    assert [k.tolist() for k in alone.report.stages[0].kept] == [k.tolist() for k in first.kept]


@pytest.mark.parametrize("router", [router for router, _ in PAIRS], ids=["layers", "entry", "three"])
def test_round_trip(router):
    data = json.loads(json.dumps(router.to_dict()))
    assert data == router.to_dict() and data["strategy"] == "router"
    assert sl.from_dict(data) == router == sl.get("router", members=router.members)
    assert eval(repr(router), vars(sl)) == router
    assert router.keep == [member.keep for member in router.parts()]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "routes nothing"),
        ([sl.FastV(keep=0.5)], "routes nothing"),
        ({0: sl.FastV(keep=0.5)}, "cannot act at the entry"),
        ({3: sl.VisPruner(keep=0.5)}, "acts at the entry, not before layer 3"),
        ({3: sl.PyramidDrop()}, "several places"),
        ({3: sl.FastV(keep=[0.5, 0.2], layer=[1, 2])}, "several places"),
        ({3: sl.CLSE(keep=0.3)}, "several places"),
        ({3: sl.Router({2: sl.FastV(keep=0.5)})}, "several places"),
        ({3: "fastv"}, "is no strategy"),
        ({-1: sl.FastV(keep=0.5)}, "the key -1"),
        ({True: sl.FastV(keep=0.5)}, "the key True"),
        ({"3.5": sl.FastV(keep=0.5)}, "the key '3.5'"),
        ({"3": sl.FastV(keep=0.5), 3: sl.FastV(keep=0.5)}, "each layer once"),
        ({2: sl.FastV(keep=0.2), 3: sl.FastV(keep=0.5)}, "grows from 0.2 to 0.5"),
        ({2: sl.FastV(keep=64), 0: sl.VisPruner(keep=32)}, "grows from 32 to 64"),
    ],
)
def test_what_is_refused(members, text):
    with pytest.raises(sl.BudgetError, match=text):
        sl.Router(members)


def test_budgets_of_two_kinds_are_not_compared():
    assert sl.Router({2: sl.FastV(keep=0.2), 3: sl.FastV(keep=64)}).keep == [0.2, 64]


def test_layers_outside_the_model_and_pairs_that_cannot_work(tiny):
    with pytest.raises(sl.BudgetError, match="outside this model"):
        sl.apply(tiny(LLAVA, "sdpa"), sl.Router({9: sl.FastV(keep=0.5)}))
    pali = next(own for own in TINIES if own.name == "paligemma")
    with pytest.raises(sl.UnsupportedModel, match="blind to the question"):
        models.check_strategy(tiny(pali, "sdpa"), sl.Router({2: sl.FastV(keep=0.5), 3: sl.PriorTR(keep=0.5)}))
    assert models.describe(tiny(pali, "sdpa")).strategies["router"] is None


@pytest.mark.parametrize("knobs", [{"keep": 0.5}, {"scope": "row"}, {}])
def test_it_has_no_fields_but_its_members(knobs):
    with pytest.raises(sl.BudgetError, match=r"members"):
        sl.get("router", **knobs)
