"""PruMerge and PruMerge+: who stays, what is added to whom, and what enters the language model, against lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, kept, unit_of
from oracle import plain_prumerge
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

both = pytest.mark.parametrize("cls", [sl.PruMerge, sl.PruMergePlus], ids=lambda cls: cls.name)


def tensors(units, visual, seed, sharp=1.0):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(units, visual, generator=generator, dtype=torch.float64).mul(sharp).softmax(-1)
    keys = torch.randn(units, visual, 5, generator=generator, dtype=torch.float64)
    return {"reader_attention": attention, "reader_keys": keys}


def sums(decision, unit):
    """By kept place, the weight of every token in its sum; nothing of no weight."""
    found = {place: {} for place in kept(decision)[unit]}
    for source, slot, weight in zip(decision.source[unit], decision.slot[unit], decision.weight[unit], strict=True):
        if weight:
            own = found[int(slot)]
            own[int(source)] = own.get(int(source), 0.0) + float(weight)
    return found


def expected(strategy, seen, unit, count):
    scores, keys = seen["reader_attention"][unit].tolist(), seen["reader_keys"][unit].tolist()
    return plain_prumerge(scores, keys, count, strategy.neighbours, isinstance(strategy, sl.PruMergePlus))


def compare(decision, strategy, seen, unit, count):
    want, have = expected(strategy, seen, unit, count), sums(decision, unit)
    assert have.keys() == want.keys()
    for place, weights in want.items():
        assert have[place] == pytest.approx(weights, abs=1e-12, rel=1e-12)


@both
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.sampled_from([0, 3, 32]), st.integers(0, 9999), st.data())
def test_a_budget_is_met_exactly(cls, units, visual, neighbours, seed, data):
    count = data.draw(st.integers(1, visual))
    seen, strategy = tensors(units, visual, seed), cls(count, neighbours=neighbours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seeless.strategies.prumerge.LIKENESSES_AT_ONCE", data.draw(st.sampled_from([1, 200, 2**22])))
        decision = strategy.reduce(fake_context(count, units, visual, layer=0, **seen))
    assert torch.equal(decision.scores, seen["reader_attention"])
    assert decision.mask.sum(1).tolist() == [count] * units
    for unit in range(units):
        if count == visual:
            assert isinstance(decision, sl.Keep)
            continue
        assert decision.features == "vision"
        compare(decision, strategy, seen, unit, count)
        alone = strategy.reduce(fake_context(count, 1, visual, layer=0, **unit_of(seen, unit)))
        assert sums(alone, 0) == sums(decision, unit)


@both
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), st.sampled_from([0.0, 0.3, 1.0, 3.0]), st.integers(0, 9999))
def test_as_many_as_stand_out(cls, units, visual, sharp, seed):
    """Units of one group may differ in how many."""
    seen, strategy = tensors(units, visual, seed, sharp), cls(neighbours=5)
    assert strategy.count(0, visual) == visual and not strategy.keeps_all(0)
    decision = strategy.reduce(fake_context(visual, units, visual, layer=0, **seen))
    for unit in range(units):
        compare(decision, strategy, seen, unit, None)


def test_outliers_by_hand():
    """Quartiles 3 and 7 of 1 ... 9, so from above 13 on; and two that stand out of equal ones."""
    scores = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8, 9], [1.0, 1, 1, 50, 1, 1, 50, 1, 1]])
    seen = {"reader_attention": scores, "reader_keys": torch.ones(2, 9, 2)}
    decision = sl.PruMerge(neighbours=1).reduce(fake_context(9, 2, 9, layer=0, **seen))
    assert kept(decision) == [[7, 8], [3, 6, 8]]  # the one more in the last free place
    assert sums(decision, 0) == {8: {8: 1.0, 0: 1.0}, 7: {i: i + 1.0 for i in range(8)}}
    assert sums(decision, 1)[3] == {3: 1.0, 0: 1.0} and sums(decision, 1)[8] == dict.fromkeys([0, 1, 2, 4, 5, 7, 8], 1)
    plus = sl.PruMergePlus(neighbours=1).reduce(fake_context(9, 2, 9, layer=0, **seen))
    assert kept(plus) == [[0, 3, 6, 7, 8], list(range(9))]  # every 9 // 3 = 3rd; 4 // 3 = 1st


def test_nothing_left_makes_no_further_token():
    seen = {"reader_attention": torch.tensor([[1.0, 5.0]]), "reader_keys": torch.ones(1, 2, 2)}
    decision = sl.PruMergePlus(neighbours=1).reduce(fake_context(2, 1, 2, layer=0, **seen))
    assert sums(decision, 0) == {0: {0: 1.0, 1: 5.0}, 1: {1: 1.0, 0: 1.0}}


@both
def test_serialised_without_a_budget(cls):
    assert cls().keep is None and sl.from_dict(cls().to_dict()) == cls()
    assert sl.get(cls.name, keep=None) == cls() and cls(0.5) != cls()


@both
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"neighbours": -1}, "neighbours=-1 is not possible; give a whole number of at least 0"),
        ({"neighbours": 2.0}, r"neighbours=2\.0"),
        ({"neighbours": True}, "neighbours=True"),
        ({"keep": 0}, "keep=0 keeps no token"),
        ({"keep": 1.5}, r"keep=1\.5 is not a share"),
        ({"keep": [0.5]}, "takes one budget"),
        ({"threshold": 0.5}, "takes no threshold"),
        ({"scope": "tile"}, "scope='tile' is not possible"),
    ],
    ids=str,
)
def test_refused(cls, knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        cls(**knobs)


def single_head(untouched, inputs):
    """Scores and keys of the last tower layer, which reads hidden_states[-2], with plain matrices."""
    tower = untouched.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    layer, states = untouched.model.vision_tower.encoder.layers[-1], tower.hidden_states[-2][0]
    normed = layer.layer_norm1(states)
    query, keys = layer.self_attn.q_proj(normed).double(), layer.self_attn.k_proj(normed).double()
    attention = (query[0] @ keys.T / keys.shape[-1] ** 0.5).softmax(-1)
    return states, attention[1:], keys[1:]


@both
@pytest.mark.parametrize("keep", [None, 1, 6, 15])
@torch.no_grad()
def test_what_enters_the_language_model(tiny, cls, keep):
    """LLaVA, one image: everything worked out from the untouched tower's own modules."""
    variant, strategy = VARIANTS[0], cls(keep, neighbours=3)
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    first = int((inputs["input_ids"][0] == IMAGE).nonzero()[0, 0])
    entered = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    with sl.apply(model, strategy) as run:
        model(**inputs)
    hook.remove()
    states, attention, keys = single_head(untouched, inputs)
    want = plain_prumerge(attention.tolist(), keys.tolist(), keep, 3, cls is sl.PruMergePlus)
    stage = run.report.stages[0]
    assert stage.kept[0].tolist() == sorted(want)
    assert torch.allclose(stage.scores[0].double(), attention, atol=1e-6)
    assert stage.signal == "the class token's single-head attention in tower layer 2, which reads the features"
    for slot, place in enumerate(sorted(want)):
        value = sum(weight * states[1 + i] for i, weight in want[place].items())
        assert torch.allclose(entered[0][0, first + slot], untouched.model.multi_modal_projector(value), atol=1e-5)


@both
@pytest.mark.parametrize("variant", VARIANTS[:5], ids=str)
@torch.no_grad()
def test_counts_that_differ_in_a_batch(tiny, variant, cls):
    """Without a budget rows and crops keep unequal numbers; a row of the batch equals the row alone."""
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, cls(neighbours=3)) as run:
        together = model(**inputs).logits
        report = run.report
        for i, row in enumerate(RAGGED):
            alone = model(**make_inputs(model, variant, [row])).logits[0]
            assert (together[i][inputs["attention_mask"][i].bool()] - alone).abs().max() < 5e-5
        model.generate(**inputs, max_new_tokens=3)
    assert all(0 < after <= before for before, after in zip(report.n_before, report.n_after, strict=True) if before)


@torch.no_grad()
def test_the_report_says_when_no_layer_reads_the_features(tiny):
    from tinies import TINIES
    from tinies import make_inputs as inputs_of

    own = next(tiny for tiny in TINIES if tiny.name == "qwen2_vl")
    model = tiny(own, "sdpa")
    with sl.apply(model, sl.PruMerge()) as run:
        model(**inputs_of(model, own, [[3, "image:0", 4]]))
    assert "which made the features (none reads them) (no class token)" in str(run.report)


@torch.no_grad()
def test_a_tower_without_class_token(tiny):
    """PaliGemma's features are those of the last layer: what each patch receives there, one head of the whole width."""
    from tinies import TINIES
    from tinies import make_inputs as inputs_of

    own = next(tiny for tiny in TINIES if tiny.name == "paligemma")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = inputs_of(model, own, [[3, "image:0", 4]])
    with sl.apply(model, sl.PruMerge(6, neighbours=3)) as run:
        model(**inputs)
    tower = untouched.model.vision_tower
    layer = next(layers for name, layers in tower.named_modules() if name.endswith("encoder.layers"))[-1]
    normed = layer.layer_norm1(tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][0])
    query, keys = layer.self_attn.q_proj(normed).double(), layer.self_attn.k_proj(normed).double()
    received = (query @ keys.T / keys.shape[-1] ** 0.5).softmax(-1).mean(0)
    stage = run.report.stages[0]
    assert torch.allclose(stage.scores[0].double(), received, atol=1e-6)
    assert stage.kept[0].tolist() == sorted(plain_prumerge(received.tolist(), keys.tolist(), 6, 3, False))


@both
@pytest.mark.parametrize("layer", [1, -1, [1, -2], [-2, -1]], ids=str)
@torch.no_grad()
def test_other_feature_layers(cls, layer):
    """The reader is the layer after the last one named; after the tower's last there is none."""
    variant = VARIANTS[0]
    model = variant.build("sdpa")
    model.config.vision_feature_layer = layer
    if isinstance(layer, list):
        model.model.multi_modal_projector.linear_1 = torch.nn.Linear(64, 64)
    inputs = make_inputs(model, variant, RAGGED[:2])
    last = layer[-1] if isinstance(layer, list) else layer
    reads = {
        0: "layer 0, which reads",
        1: "layer 1, which reads",
        -2: "layer 2, which reads",
        -1: "layer 2, which made",
    }
    with sl.apply(model, cls(6, neighbours=3)) as run:
        model(**inputs)
        assert reads[last] in run.report.stages[0].signal and run.report.n_after == [6, 12]
