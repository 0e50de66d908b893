"""Patches that leave the tower before or between its layers: what is computed, read, counted and refused."""

from typing import ClassVar

import pytest
import torch

import seeless as sl
from oracle import oracle_of, turn_of
from seeless.models import check_strategy
from tinies import IMAGE, RAGGED, RAGGED_VIDEO, TINIES, VIDEO, make_inputs

BY_NAME = {tiny.name: tiny for tiny in TINIES}
LLAVA = BY_NAME["llava-llama-mha"]
PLACEHOLDERS = [IMAGE, VIDEO]
PIXELS = sl.PixelPrune(tolerance=0.9, deviation=0.2)
WINDOWS = sl.MustDrop(window=2, flat=0.1, total=0.05, largest=0.05)


class Odd(sl.PatchStrategy):
    """Before one tower layer every token at an odd place leaves, of odd pictures one more."""

    keep: int = 1
    before: int = 0
    name: ClassVar[str] = "odd"

    def tower_layers(self, made):
        return [self.before]

    def leave(self, ctx):
        return sl.Keep((ctx.index % 2 == 0) & ((ctx.index > 0) | (ctx.hidden[..., :1].sum(1) < 0)))


def deep(own, layers, backend):
    """A tiny with a deeper tower, in float64."""
    config = own.config

    def deeper():
        made = config()
        made.vision_config.num_hidden_layers = layers
        return made

    own.config = deeper
    try:
        return own.build(backend, torch.float64)
    finally:
        del own.config


def doubled(inputs):
    return {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


def assert_equal_to_masked(model, untouched, own, strategy, rows):
    """The forward and that of an untouched model in which the same patches are masked; gives both's counts."""
    inputs = doubled(make_inputs(model, own, rows))
    with sl.apply(model, strategy) as run:
        have = model(**inputs).logits
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    with oracle_of(untouched, [strategy], [turn], inputs["attention_mask"], tower=strategy) as oracle:
        want = untouched(**inputs, use_cache=False).logits
    text = ~torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)) & inputs["attention_mask"].bool()
    assert (have - want)[text].abs().max() < 1e-5
    return run.report, oracle.tower.left


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("strategy", [PIXELS, WINDOWS], ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@torch.no_grad()
def test_packed_patches_equal_masked_ones(name, strategy, kind):
    """One grid per picture, attention windows, and features of several layers (DeepStack)."""
    own = BY_NAME[name]
    model, untouched = own.build("sdpa", torch.float64), own.build("eager", torch.float64)
    rows = RAGGED_VIDEO if kind == "video" else RAGGED
    report, left = assert_equal_to_masked(model, untouched, own, strategy, rows)
    kept = [own.tolist() for own in report.stages[0].kept]
    if kind == "image":  # what is left of the pictures is what the decoder sees, picture by picture
        counts = iter(left["image"])
        for row, given in zip(kept, rows, strict=True):
            assert len(row) == sum(len(next(counts)) for piece in given if isinstance(piece, str))
    assert report.flops_after.tower < report.flops_before.tower


@pytest.mark.parametrize("keep", [1, 3, 0.5])
@pytest.mark.parametrize("name", ["llava-llama-mha", "internvl"])
@torch.no_grad()
def test_patches_that_leave_at_several_layers_equal_masked_ones(name, keep):
    """Rows of a batch lose unequally many on the way, and in the end the same."""
    own = BY_NAME[name]
    model, untouched = deep(own, 8, "sdpa"), deep(own, 8, "eager")
    strategy = sl.FlowCut(keep=keep)
    report, left = assert_equal_to_masked(model, untouched, own, strategy, RAGGED)
    total = report.n_before[0] if name == "llava-llama-mha" else 16
    assert {len(own) for own in left["image"]} == {strategy.count(0, total)}
    seen = [picture.inside for picture in report.facts.pictures]
    assert all(own == sorted(own, reverse=True) for own in seen)
    assert len({tuple(own) for own in seen}) > 1 and max(len(set(own)) for own in seen) > 2


# A tower that is run by hand on the patches that stay.


def by_hand(model, pixels, before, stays):
    """Hidden states of a CLIP tower's layers, `[layers + 1][patches + 1, width]`, and each layer's attention."""
    tower = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    states, looks = [tower.pre_layrnorm(tower.embeddings(pixels[None]))], []
    for index, layer in enumerate(tower.encoder.layers):
        here = states[-1]
        if index == before:
            here = here[:, [0, *(1 + place for place in stays)]]
        own, normed = layer.self_attn, layer.layer_norm1(here)
        query, key = (
            proj(normed)[0].unflatten(-1, (own.num_heads, -1)).transpose(0, 1) for proj in (own.q_proj, own.k_proj)
        )
        looks.append((query @ key.transpose(1, 2) * own.head_dim**-0.5).softmax(-1)[:, 0, 1:])
        given = layer(here, attention_mask=None)
        states.append(given[0] if isinstance(given, tuple) else given)
    return [own[0] for own in states], looks


class Spy(sl.EntryStrategy):
    """Keeps everything, and notes what the tower says."""

    keep: int = 10**6
    scope: str = "crop"
    seen: ClassVar[list] = []

    def select(self, ctx):
        units = [ctx.vision_attention(), ctx.vision_features(), ctx.vision_keys(), ctx.index]
        self.seen.append([part.clone() for part in units])
        return sl.Keep(torch.ones(ctx.index.shape, dtype=torch.bool))


@pytest.mark.parametrize("before", [0, 1])
@torch.no_grad()
def test_what_the_tower_says_afterwards_is_said_of_the_patches_that_stay(before):
    model = LLAVA.build("sdpa", torch.float64)
    inputs = doubled(make_inputs(model, LLAVA, [["image:0", 5], [3, "image:1", 4]]))
    Spy.seen.clear()
    with sl.apply(model, [Odd(before=before), Spy()]):
        model(**inputs)
    found = {}  # by picture
    for attention, features, _, index in Spy.seen:
        for own in range(len(index)):
            found[len(found)] = index[own].tolist(), attention[own], features[own]
    assert len(found) == 2
    for picture, (stays, attention, features) in found.items():
        assert set(stays) <= set(range(0, 16, 2)) and len(stays) in (7, 8)
        states, looks = by_hand(model, inputs["pixel_values"][picture], before, stays)
        torch.testing.assert_close(features, states[2][1:], atol=1e-9, rtol=0)  # vision_feature_layer is -2 of three
        torch.testing.assert_close(attention.double(), looks[1], atol=1e-6, rtol=0)


@torch.no_grad()
def test_flops_of_the_tower_by_hand():
    model = LLAVA.build("sdpa")
    with sl.apply(model, sl.FlowCut(keep=4)) as run:
        model(**make_inputs(model, LLAVA, [["image:0", 5]]))
    embedding = 2 * 16 * 192 * 32  # 16 patches of 3 x 8 x 8 pixels, width 32
    per_patch = 4 * 32 * 32 + 2 * 32 * 48

    def layer(n):
        return 2 * n * per_patch + 4 * n**2 * 32

    assert run.report.flops_before.tower == embedding + 3 * layer(17)
    assert run.report.flops_after.tower == embedding + layer(17) + layer(5)  # nobody reads the last layer


# What is refused.


def refused(name, strategy, error, match):
    with pytest.raises(error, match=match):
        sl.apply(BY_NAME[name].build("sdpa"), strategy)
    with pytest.raises(error, match=match):
        check_strategy(BY_NAME[name].build("sdpa"), strategy)


def test_towers_that_cannot_do_it_are_refused_by_name():
    refused("qwen2_vl", sl.FlowCut(keep=0.5), sl.UnsupportedModel, "this vision tower has none")
    refused("llava_onevision", PIXELS, sl.UnsupportedModel, "resampled after the tower")
    refused("lfm2_vl", WINDOWS, sl.UnsupportedModel, "filled up to equally many patches")
    with pytest.raises(sl.BudgetError, match="act inside the vision tower"):
        sl.apply(LLAVA.build("sdpa"), [PIXELS, sl.ToMe(keep=0.5)])


@torch.no_grad()
def test_features_made_otherwise_are_refused():
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, [["image:0", 5]])
    with sl.apply(model, PIXELS):
        made = model.model.get_image_features(inputs["pixel_values"])
    given = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with (
        sl.apply(model, WINDOWS),
        pytest.raises(sl.InputError, match=r"made with PixelPrune.*this handle has MustDrop"),
    ):
        model(**given, mm_encoder_outputs={"image": made})


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda ctx: None, "Slip.leave gave None; is a return missing"),
        (lambda ctx: sl.Keep(torch.ones(1, 3, dtype=torch.bool)), r"shape \[1, 16\]"),
        (lambda ctx: sl.Keep(torch.zeros(1, 16, dtype=torch.bool)), "keeps no token"),
        (lambda ctx: sl.Keep(ctx.index % 2 == 0, count=9), "fewer than its budget of 9"),
    ],
)
@torch.no_grad()
def test_slips_of_a_strategy_are_told(answer, match):
    class Slip(Odd):
        def leave(self, ctx):
            return answer(ctx)

    model = LLAVA.build("sdpa")
    with sl.apply(model, Slip()), pytest.raises(sl.StrategyError, match=match):
        model(**make_inputs(model, LLAVA, [["image:0", 5]]))


def test_a_strategy_that_does_not_decide_is_no_strategy():
    with pytest.raises(sl.StrategyError, match="defines none of leave"):
        sl.register("nothing")(type("Nothing", (sl.PatchStrategy,), {"score": lambda self, ctx: None}))


@torch.no_grad()
def test_signals_that_were_not_declared_are_refused():
    class Curious(Odd):
        def leave(self, ctx):
            return sl.Keep(ctx.pixels.flatten(2).sum(2) > 0)

    model = LLAVA.build("sdpa")
    with sl.apply(model, Curious()), pytest.raises(sl.InputError, match="asks for pixels, which are only kept"):
        model(**make_inputs(model, LLAVA, [["image:0", 5]]))
