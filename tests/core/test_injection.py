"""Visual features that enter between decoder layers: what becomes of them, and what strategies are shown of them."""

import pytest
import torch

import seeless as sl
from seeless.models import describe, visual_features
from tinies import RAGGED, TINIES, make_inputs

BY_NAME = {own.name: own for own in TINIES}
GRANITE = BY_NAME["granite4_vision"]
PICTURE = [[5, "image:0", 9]]


@torch.no_grad()
def test_the_entry_is_shown_what_enters_first(tiny):
    """In the scale of embeddings, which the decoder multiplies and features it does not."""
    model, untouched = tiny(GRANITE, "sdpa"), tiny(GRANITE, "untouched")
    inputs = make_inputs(model, GRANITE, PICTURE)
    given = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
    first = dict(untouched.get_image_features(**given, return_dict=True).deepstack_features)[0][0]
    seen = []

    class Seeing(sl.EntryStrategy):
        tower = ("features",)

        def score(self, ctx):
            seen.append((ctx.vision_features(), ctx.visual, ctx.embeds))
            return ctx.index.float()

    with sl.apply(model, Seeing(keep=0.5, scope="image")):
        model(**inputs)
    ((features, visual, embeds),) = seen
    shown = [place for crop, _, _ in GRANITE.image(0).crops for place in crop]
    assert visual.shape[1] == len(shown) < len(first)  # without newlines, which show no patch
    own = first[sorted(shown)]
    assert torch.allclose(features[0], own, atol=1e-5)
    assert torch.allclose(visual[0] * model.config.text_config.embedding_multiplier, own, atol=1e-5)
    assert torch.equal(visual, embeds)


@pytest.mark.parametrize("name", ["granite4_vision", "qwen3_vl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_nothing_dropped_changes_no_bit(name, dtype):
    own = BY_NAME[name]
    model = own.build("sdpa", dtype)
    inputs = make_inputs(model, own, RAGGED)
    before = model(**inputs, output_hidden_states=True)
    with sl.apply(model, sl.PyramidDrop(keep=[1.0, 1.0, 1.0])):
        after = model(**inputs, output_hidden_states=True)
    assert torch.equal(before.logits, after.logits)
    for here, there in zip(before.hidden_states, after.hidden_states, strict=True):
        assert torch.equal(here, there)


@torch.no_grad()
def test_a_layer_sees_the_features_of_what_is_left(tiny):
    """And strategies are shown the states without them, if they ask for these."""
    model, seen = tiny(GRANITE, "sdpa"), []
    inputs = make_inputs(model, GRANITE, PICTURE)

    class Second(sl.LayerStrategy):
        def score(self, ctx):
            seen.append((ctx.hidden - ctx.uninjected)[0, ctx.places[0]])
            return ctx.index.float()

    given = {name: inputs[name] for name in ("pixel_values", "image_sizes")}
    features = dict(model.get_image_features(**given, return_dict=True).deepstack_features)
    with sl.apply(
        model, [sl.Uniform(keep=0.5, newlines=True), Second(layer=2, keep=0.5), Second(layer=5, keep=0.25)]
    ) as run:
        model(**inputs)
    (before, after), (first, second) = seen, (stage.kept[0] for stage in run.report.stages[:2])
    assert torch.allclose(before, features[2][0][first], atol=1e-5)
    assert 2 in features and 5 not in features and len(after) == len(second) and not after.any()


def test_operations_of_several_projectors():
    """Every projector's weights for every token, but keys and values of the Q-Formers, which are made of patches."""
    model = GRANITE.build("sdpa")
    inputs = make_inputs(model, GRANITE, [[3, "image:0", 4]])
    with torch.no_grad(), sl.apply(model, sl.Uniform(keep=5)) as run:
        model(**inputs)
    crops, tokens, patches, width = 5, 16, 64, 64
    by_token = 4 * width**2 + 2 * width**2 + 2 * width * 48 + width * 64  # twice attention, feed-forward, out
    by_patch = 2 * width**2
    assert run.report.flops_before.projector == 2 * 7 * crops * (tokens * by_token + patches * by_patch)


def without_a_first_feature():
    config = GRANITE.config()
    config.deepstack_layer_map = [(-1, 2)]
    return config


def test_what_shows_nothing_at_the_entry_is_refused():
    model = GRANITE.model_class(without_a_first_feature())
    with pytest.raises(sl.UnsupportedModel, match=r"nothing of a picture enters .* before decoder layer 1 "):
        sl.apply(model, sl.Uniform(keep=0.5))


def test_features_behind_the_last_layer_are_refused(tiny):
    own = BY_NAME["qwen3_vl"]
    config = own.config()
    config.text_config.num_hidden_layers = 3  # as many as have features
    model = own.model_class(config).eval()
    with (
        torch.no_grad(),
        sl.apply(model, sl.Uniform(keep=0.5)),
        pytest.raises(sl.UnsupportedModel, match=r"added after 3 layers .* which has 3"),
    ):
        model(**make_inputs(model, own, PICTURE))


def test_info_says_what_works():
    refused = {name for name, reason in describe(GRANITE.build()).strategies.items() if reason is not None}
    assert {"tome", "flowcut", "pixelprune"} <= refused and not {"fastervlm", "fastv", "pool", "visionzip"} & refused


def test_features_in_no_known_form_are_refused():
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    with pytest.raises(sl.UnsupportedModel, match="a BaseModelOutputWithPooling without pooler_output"):
        visual_features(BaseModelOutputWithPooling())
