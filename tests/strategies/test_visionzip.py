"""VisionZip: which tokens are summed where, against lists; the class token; what the projector makes of the sums."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import fake_context, kept
from oracle import plain_zip
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs

NEXT = next(variant for variant in VARIANTS if variant.family == "llava_next")


def tensors(units, visual, seed, led=True):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(units, 2, visual, generator=generator, dtype=torch.float64).softmax(-1)
    keys = torch.randn(units, 2, visual, 5, generator=generator, dtype=torch.float64)
    lead = torch.randn(units, 3, generator=generator, dtype=torch.float64)
    return {"vision_attention": attention, "vision_keys": keys, "class_token": lead if led else None}


def sums(decision, unit):
    """By kept place, the weight of every token in its sum."""
    found = {place: {} for place in kept(decision)[unit]}
    for source, slot, weight in zip(decision.source[unit], decision.slot[unit], decision.weight[unit], strict=True):
        found[int(slot)][int(source)] = float(weight)
    return found


def expected(seen, unit, count, share, in_place=False):
    scores, keys = (seen[name][unit].mean(0).tolist() for name in ("vision_attention", "vision_keys"))
    return plain_zip(scores, keys, count, share, seen["class_token"] is not None, in_place)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 9999), st.data())
def test_any_size(units, visual, led, in_place, seed, data):
    count = data.draw(st.integers(1, visual))
    share = data.draw(st.sampled_from([0, 5 / 32, 0.5, 0.99]))
    seen = tensors(units, visual, seed, led)
    strategy = sl.VisionZip(count, contextual_share=share, positions="keep" if in_place else None)
    decision = strategy.reduce(fake_context(count, units, visual, layer=0, **seen))
    assert torch.equal(decision.scores, seen["vision_attention"].mean(1))
    for unit in range(units):
        if count == visual:
            assert isinstance(decision, sl.Keep) and decision.mask.all()
            continue
        assert decision.features == "vision"
        want = expected(seen, unit, count, share, in_place)
        have = sums(decision, unit)
        assert len(have) == count and have.keys() == want.keys()
        for place, weights in want.items():
            assert have[place] == pytest.approx(weights, abs=1e-12, rel=1e-12)
        own = {name: x if x is None else x[unit : unit + 1] for name, x in seen.items()}
        alone = strategy.reduce(fake_context(count, 1, visual, layer=0, **own))
        assert kept(alone) == [kept(decision)[unit]]


@pytest.mark.parametrize(
    ("keep", "dominant", "contextual"), [(192, 162, 30), (128, 108, 20), (64, 54, 10), (32, 27, 5)]
)
def test_the_papers_budgets(keep, dominant, contextual):
    seen = tensors(1, 576, 0)
    found = sums(sl.VisionZip(keep).reduce(fake_context(keep, 1, 576, layer=0, **seen)), 0)
    first, *rest = found.values()
    assert first == {576: 1.0}
    assert all(len(weights) == 1 for weights in rest[: dominant - 1])
    assert all(max(weights.values()) == 1.0 for weights in rest)
    assert len(rest) == dominant - 1 + contextual
    of_dominant = [next(iter(weights)) for weights in rest[: dominant - 1]]
    assert of_dominant == sorted(of_dominant)
    together = sorted(source for weights in found.values() for source in weights)
    assert together == list(range(577))  # every token is used once


def test_ties_go_to_the_lower_index():
    same = {"vision_attention": torch.ones(1, 1, 12), "vision_keys": torch.ones(1, 1, 12, 2)}
    found = sums(sl.VisionZip(6, contextual_share=0.34).reduce(fake_context(6, 1, 12, layer=0, **same)), 0)
    assert {i: found.pop(i) for i in range(4)} == {i: {i: 1.0} for i in range(4)}  # dominant
    assert found.pop(8) == {8: 1.0}  # contextual, and all others join the first one
    assert found == {4: pytest.approx({4: 1.0, **dict.fromkeys([5, 6, 7, 9, 10, 11], 1 / 6)})}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype):
    seen = {name: x.to(dtype) for name, x in tensors(2, 50, 5).items()}
    wide = {name: x.float() for name, x in seen.items()}
    seen["vision_attention"] = wide["vision_attention"]  # always float32
    one, other = (sl.VisionZip(13).reduce(fake_context(13, 2, 50, layer=0, **t)) for t in (seen, wide))
    assert torch.equal(one.source, other.source) and torch.equal(one.slot, other.slot)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"contextual_share": 1}, "contextual_share=1 is not possible; give a number from 0 to below 1"),
        ({"contextual_share": -0.1}, r"contextual_share=-0\.1"),
        ({"contextual_share": True}, "contextual_share=True"),
        ({"contextual_share": "some"}, "contextual_share='some'"),
        ({"scope": "image"}, "scope='image' is not possible"),
        ({"threshold": 0.5}, "takes no threshold"),
    ],
    ids=str,
)
def test_refused(knobs, message):
    with pytest.raises(sl.BudgetError, match=message):
        sl.VisionZip(keep=0.5, **knobs)


@pytest.mark.parametrize("positions", [None, "keep"])
@torch.no_grad()
def test_what_enters_the_language_model(tiny, positions):
    """LLaVA, one image: everything worked out from the untouched tower's own outputs."""
    variant = VARIANTS[0]
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED[:1])
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    entered = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: entered.append((args[0], kwargs["position_ids"])), with_kwargs=True
    )
    with sl.apply(model, sl.VisionZip(7, contextual_share=0.3, positions=positions)) as run:
        model(**inputs)
    hook.remove()
    tower = untouched.model.vision_tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
    layer = untouched.model.vision_tower.encoder.layers[1]
    scores = tower.attentions[1][0, :, 0, 1:].double().mean(0)
    keys = layer.self_attn.k_proj(layer.layer_norm1(tower.hidden_states[1]))[0, 1:].double().unflatten(-1, (4, -1))
    states = tower.hidden_states[-2][0]
    want = plain_zip(scores.tolist(), keys.mean(1).tolist(), 7, 0.3, True, positions == "keep")
    (states_in, position_ids), first = entered[0], int(columns[0])
    stage = run.report.stages[0]
    assert stage.kept[0].tolist() == sorted(want)
    assert torch.allclose(stage.scores[0].double(), scores, atol=1e-6)
    for slot, place in enumerate(sorted(want)):
        value = sum(weight * states[0 if i == 16 else 1 + i] for i, weight in want[place].items())
        assert torch.allclose(states_in[0, first + slot], untouched.model.multi_modal_projector(value), atol=1e-5)
        assert position_ids[0, first + slot] == first + (place if positions == "keep" else slot)
    if positions is None:  # the class token leads
        value = untouched.model.multi_modal_projector(states[0])
        assert torch.allclose(states_in[0, first], value, atol=1e-5)


@torch.no_grad()
def test_every_crop_has_its_own_class_token_and_newlines_may_stay(tiny):
    model = tiny(NEXT, "sdpa")
    inputs = make_inputs(model, NEXT, RAGGED)
    for newlines in (False, True):
        with sl.apply(model, sl.VisionZip(5, newlines=newlines)) as run:
            assert model(**inputs).logits.isfinite().all()
        for row, boxes in enumerate(run.report.boxes):
            lines = int(torch.cat(boxes).isnan().any(1).sum()) if boxes else 0
            crops = run.report.n_after[row] - newlines * lines
            assert crops % 5 == 0


@torch.no_grad()
def test_only_the_first_merging_stage_at_the_entry_can_sum_features(tiny):
    variant = VARIANTS[0]
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED[:1])
    with sl.apply(model, [sl.Random(keep=12), sl.VisionZip(6)]) as run:
        model(**inputs)
    assert run.report.n_after == [6] and set(run.report.stages[1].kept[0].tolist()) <= set(
        run.report.stages[0].kept[0].tolist()
    )
    with sl.apply(model, [sl.Pool(keep=9), sl.VisionZip(6)]), pytest.raises(sl.InputError, match="put it first"):
        model(**inputs)

    class Late(sl.LayerStrategy):
        def reduce(self, ctx):
            everything = torch.ones(ctx.index.shape, dtype=torch.bool)
            return sl.Merge(everything, ctx.index, ctx.index, torch.ones(ctx.index.shape), features="vision")

    with sl.apply(model, Late(keep=3)), pytest.raises(sl.InputError, match="before layer 0"):
        model(**inputs)


@torch.no_grad()
def test_a_class_token_that_cannot_be_given(tiny):
    """A unit of several crops has several; a projector of merged patches takes none."""
    from tinies import TINIES
    from tinies import make_inputs as inputs_of

    class Leader(sl.EntryStrategy):
        def reduce(self, ctx):
            units, visual = ctx.index.shape
            everything = torch.ones(units, visual, dtype=torch.bool)
            token = torch.full((units, 1), visual)
            return sl.Merge(everything, token, token * 0, torch.ones(units, 1), features="vision")

    own = next(tiny for tiny in TINIES if tiny.name == "internvl")
    model = tiny(own, "sdpa")
    with (
        sl.apply(model, Leader(keep=5, scope="crop")),
        pytest.raises(sl.InputError, match="asks 1 times for a class token"),
    ):
        model(**inputs_of(model, own, [[3, "image:0", 4]]))

    own = next(tiny for tiny in TINIES if tiny.name == "video_llava")
    model = tiny(own, "sdpa")
    with sl.apply(model, Leader(keep=5, scope="crop")):
        model(**inputs_of(model, own, [[3, "image:0", 2, "video:1", 4]]))


@pytest.mark.parametrize("layer", [1, -1, [1, -2]], ids=str)
@torch.no_grad()
def test_the_class_token_of_other_feature_layers(layer):
    """Where several layers' states stand side by side, so do their class tokens."""
    variant = VARIANTS[0]
    model = variant.build("sdpa")
    model.config.vision_feature_layer = layer
    if isinstance(layer, list):
        model.model.multi_modal_projector.linear_1 = torch.nn.Linear(64, 64)
    inputs = make_inputs(model, variant, RAGGED[:1])
    seen = []

    class Spy(sl.EntryStrategy):
        adaptive = True

        def select(self, ctx):
            seen.append(ctx.class_token())
            return sl.Keep(torch.ones(ctx.index.shape, dtype=torch.bool))

    with sl.apply(model, Spy(keep=5, scope="crop")):
        model(**inputs)
    states = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
    layers = layer if isinstance(layer, list) else [layer]
    assert torch.equal(seen[0], torch.cat([states[i][:, 0] for i in layers], -1))
