"""What the studies read, against the untouched model's own eager maps; who may see whom is read off their zeros."""

import numpy as np
import pytest
import torch

import seeless as sl
from seeless import models
from seeless.analysis import AttentionShare, OtherStudy, analyze, read_attention, scene_samples
from seeless.api import active_handle
from tinies import IMAGE, TINIES, make_inputs

# A class token; newlines between tiles; M-RoPE; both ways and windows; the whole prompt both ways; recurrent layers.
FAMILIES = ("llava-llama-mha", "llava_next-llama-mha", "qwen2_vl", "gemma3", "paligemma", "qwen3_5")
TINY = {str(tiny): tiny for tiny in TINIES}


@pytest.fixture
def model():
    return TINIES[0].build("sdpa")


def prompt(model):
    return make_inputs(model, TINIES[0], [[5, "image:0", 9]])


def by_hand(maps, places, text):
    """`full`, `image`, `text` of one layer, `[visual]`, and the share of `text`, with loops over `maps` [seq, seq].

    `places` of patches; `text` is where it begins, behind the last placeholder, which may be a newline's.
    """
    rows = {"full": range(places[0], len(maps)), "image": places, "text": range(text, len(maps) - 1)}
    found = {}
    for kind, members in rows.items():
        own = []
        for place in places:
            given = [maps[row, place].item() for row in members]
            may = sum(value > 0 for value in given)
            own.append(sum(given) / may if may else float("nan"))
        found[kind] = own
    found["share"] = np.mean([sum(maps[row, place].item() for place in places) for row in rows["text"]])
    return found


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_layer_and_kind_of_row_is_that_of_the_models_own_maps(name):
    tiny = TINY[name]
    model, eager = tiny.build("sdpa"), tiny.build("eager")
    inputs = make_inputs(model, tiny, [[5, "image:0", 9]])
    reading = read_attention(model, inputs)
    maps = [None if a is None else a[0].double().mean(0) for a in eager(**inputs, output_attentions=True).attentions]
    attending = models.readable_layers(model)
    assert list(reading.layers) == attending
    maps = maps if len(maps) == len(attending) else [maps[layer] for layer in attending]
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0].tolist()
    shown = [place for place, _, _ in tiny.piece(model, "image", 0).crops for place in place]
    places = [columns[place] for place in sorted(shown)]
    for at, own in enumerate(maps):
        expected = by_hand(own, places, columns[-1] + 1)
        np.testing.assert_allclose(reading.last[at], own[-1, places], rtol=1e-4, atol=1e-7)
        for kind in ("full", "image", "text"):
            np.testing.assert_allclose(getattr(reading, kind)[at], expected[kind], rtol=1e-4, atol=1e-7, err_msg=kind)
        assert reading.text_share[at] == pytest.approx(expected["share"], rel=1e-4)


@torch.no_grad()
def test_the_divisors_on_a_causal_decoder_are_the_papers(model):
    """Token j of N, of M rows from the first one on, is seen by M - j rows, by N - j of them visual ones."""
    eager, inputs = TINIES[0].build("eager"), prompt(model)
    reading = read_attention(model, inputs, layers=[1])
    own = eager(**inputs, output_attentions=True).attentions[1][0].double().mean(0)
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    own, visual = own[columns[0] :, columns], len(columns)
    j = torch.arange(visual)
    np.testing.assert_allclose(reading.full[0], own.sum(0) / (len(own) - j), rtol=1e-4)
    np.testing.assert_allclose(reading.image[0], own[:visual].sum(0) / (visual - j), rtol=1e-4)
    np.testing.assert_allclose(reading.text[0], own[visual:-1].mean(0), rtol=1e-4)


@torch.no_grad()
def test_the_tower_is_the_class_tokens_row_of_the_layer_that_makes_the_features(model):
    eager, inputs = TINIES[0].build("eager"), prompt(model)
    maps = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    reading = read_attention(model, inputs)
    assert eager.config.vision_feature_layer == -2  # what the last layer is given: the second last one made it
    np.testing.assert_allclose(reading.tower, maps[-2][0].double().mean(0)[0, 1:], rtol=1e-4)
    assert reading.grid == (4, 4)


@torch.no_grad()
def test_only_last_rows_and_some_layers(model):
    whole, some = (read_attention(model, prompt(model), *args) for args in ((), ([4, 1], False)))
    assert some.layers == (1, 4) and some.full is some.image is some.text is some.text_share is None
    np.testing.assert_array_equal(some.last, whole.last[[1, 4]])


def test_what_cannot_be_read_is_refused(model):
    with pytest.raises(sl.InputError, match="layer 6 cannot be read; this model shows layers"):
        read_attention(model, prompt(model), layers=[6])
    with pytest.raises(sl.InputError, match="2 prompts"):
        read_attention(model, make_inputs(model, TINIES[0], [[5, "image:0", 9], [5, "image:1", 9]]))
    with pytest.raises(sl.InputError, match="no picture"):
        read_attention(model, {"input_ids": prompt(model)["input_ids"][:, :5]})
    assert active_handle(model) is None


def test_a_study_of_other_weights_is_not_gone_on_with(tmp_path):
    model, file = TINIES[0].build("sdpa"), tmp_path / "gathered.npz"

    def study(of):
        build = lambda image, sample: prompt(of)  # noqa: E731
        return analyze(of, scene_samples(2), build, [AttentionShare()], file=file, settings={"model": "m"})

    assert study(model).samples == study(TINIES[0].build("sdpa")).samples == 2
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 0.5
    with pytest.raises(OtherStudy, match=r"was made with weights='[0-9a-f]{16}', not '[0-9a-f]{16}'"):
        study(model)
