"""Any layer of the vision tower, and SigLIP's pooling head, against what an untouched eager model computes."""

from dataclasses import replace

import pytest
import torch
import transformers
from test_tower_attention import LEADS, NAMES, PROMPTS, per_patch, to_tokens, watched

import seeless as sl
import tinies
from tinies.base import tower_options
from tinies.llava_onevision import CROP, SIDE
from tinies.qwen2_5_vl import Qwen25VL

FAMILIES = [
    *("llava-llama-mha", "paligemma", "internvl", "mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    *("smolvlm", "gemma3"),
]
CLOSE = {"atol": 2e-6, "rtol": 1e-4}


class Looking(sl.EntryStrategy):
    """Looks at every layer in every way there is."""

    tower = ("layers",)

    def looks_into(self, tower):
        ways = ("class", "all", "hidden") if tower.class_token else ("all", "hidden")
        return [(way, layer) for layer in range(tower.layers) for way in ways]

    def score(self, ctx):
        for way, layer in self.looks_into(ctx.tower):
            found = ctx.vision_hidden(layer) if way == "hidden" else ctx.vision_attention(layer, way).transpose(1, 2)
            SEEN.setdefault((way, layer), []).append(found)
        return ctx.visual[..., 0]


SEEN = {}


def layers_of(model):
    return next(m for n, m in model.named_modules() if n.split(".")[-1] in ("blocks", "layers", "layer"))


def run_looking(model, given, strategy=None):
    SEEN.clear()
    with torch.no_grad(), sl.apply(model, strategy or Looking(keep=0.5, scope="crop")) as run:
        model(**given)
    return {look: torch.cat([x.flatten(0, 1) for x in seen]) for look, seen in SEEN.items()}, run.report


def plainly(model, given, monkeypatch):
    """Per layer, the eager weights of its calls, and what it gave, of an untouched model."""
    layers, weights, states = layers_of(model), [], []
    with monkeypatch.context() as patch, torch.no_grad():
        for layer in layers:
            home, spy, calls = watched(model, layer)
            patch.setattr(home, "eager_attention_forward", spy)
            weights.append(calls)
            layer.register_forward_hook(lambda m, a, output: states.append(output))
        model(**given)
    maps = [[own for _, _, own in calls] for calls in weights]
    return maps, [own[0] if isinstance(own, tuple) else own for own in states]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_by_class_row_by_all_rows_and_its_states(name, monkeypatch):
    tiny = NAMES[name]
    untouched, model = tiny.build("eager"), tiny.build("sdpa")
    given = tinies.make_inputs(model, tiny, PROMPTS.get(name, [[3, "image:0", 4, "image:1", 5]]))
    found, report = run_looking(model, given)
    lead = name in LEADS
    maps, states = plainly(untouched, given, monkeypatch)
    for layer, (own, hidden) in enumerate(zip(maps, states, strict=True)):
        received = torch.cat([m.mean(-2)[..., int(lead) :].movedim(-1, 1).flatten(0, 1) for m in own])
        received = to_tokens(received, untouched, tiny, given)
        if name == "mistral3":  # pictures see themselves only, so a mean over all rows is one over another number
            sizes = [(int(h) // 4) * (int(w) // 4) for h, w in given["image_sizes"]]
            received *= torch.cat([torch.full((size // 4,), sum(sizes) / size) for size in sizes])[:, None]
        if name == "qwen2_5_vl":  # windows see themselves only
            assert received.std() > 1e-4
        assert torch.allclose(found["all", layer], received, **CLOSE), layer
        if lead:
            row = to_tokens(per_patch(own, True), untouched, tiny, given)
            assert torch.allclose(found["class", layer], row, **CLOSE)
            assert not torch.allclose(found["all", layer], row, atol=1e-3)
        flat = (hidden[:, int(lead) :] if hidden.ndim == 3 else hidden).flatten(0, -2)
        assert torch.allclose(found["hidden", layer], to_tokens(flat, untouched, tiny, given), atol=2e-5, rtol=1e-4)
    assert len({round(float(found["all", layer].std()), 7) for layer in range(len(maps))}) == len(maps)
    assert all(f"in tower layer {layer}" in report.stages[0].signal for layer in range(len(maps)))


@pytest.mark.parametrize("name", ["lfm2_vl", "gemma4", "qwen2_5_vl", "llava_onevision", "mistral3"])
def test_pictures_of_unequal_size_see_what_they_see_alone(name):
    """Padding of the tower, packed sequences and unequal rows of a batch change nothing."""
    tiny = NAMES[name]
    model = tiny.build("sdpa")
    rows = [[3, "image:0", 4], [5, "image:1", 4, "image:2", 6]]
    found, _ = run_looking(model, tinies.make_inputs(model, tiny, rows), Looking(keep=0.5, scope="row"))
    alone = []
    for row in ([3, "image:0", 4], [5, "image:1", 4], [5, "image:2", 4]):
        alone.append(run_looking(model, tinies.make_inputs(model, tiny, [row]), Looking(keep=0.5, scope="row"))[0])
    for look, values in found.items():
        expected = torch.cat([own[look] for own in alone])
        assert len(expected) == len(values)
        for value in expected:  # rows of unequal size are asked in another order
            assert (values - value).abs().amax(1).min() < 2e-5, look


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "video_llava"])
def test_frames_of_videos_see_what_pictures_see(name):
    """Every frame on its own: a video of two equal halves shows the same in both."""
    tiny = NAMES[name]
    model = tiny.build("sdpa")
    given = tinies.make_inputs(model, tiny, [[3, "video:0", 4]])
    pixels = given["pixel_values_videos"]
    halves = 0 if name == "qwen2_5_vl" else 1
    half = pixels.narrow(halves, 0, pixels.shape[halves] // 2)
    found, _ = run_looking(model, {**given, "pixel_values_videos": torch.cat([half, half], halves)})
    for look, values in found.items():
        first, second = values.chunk(2)
        assert torch.allclose(first, second, atol=1e-5), look


@pytest.mark.skipif("lfm3_vl" not in NAMES, reason="this release has no tower with convolutions")
def test_a_layer_of_convolution_is_stood_for_and_has_states():
    tiny = NAMES["lfm3_vl"]
    model = tiny.build("sdpa")
    kinds = model.config.vision_config.layer_types
    assert list(kinds) == ["conv", "full_attention", "full_attention", "conv"]

    class Some(Looking):
        def looks_into(self, tower):
            assert tower.attending == tower.whole == tuple(i for i, own in enumerate(kinds) if own != "conv")
            return [("all", 3), ("all", 2), ("hidden", 3)]

    found, report = run_looking(model, tinies.make_inputs(model, tiny, [[3, "image:0", 4]]), Some(keep=0.5))
    conv, stand_in, _ = found
    assert torch.equal(found[conv], found[stand_in])
    assert report.stages[0].signal.startswith("the mean attention received in tower layer 2")
    with pytest.raises(sl.UnsupportedModel, match="no tower layer up to 0 has attention"):
        sl.apply(model, Named(keep=0.5, look="all"))


def test_what_a_tower_is_told_to_be():
    class Told(Looking):
        def looks_into(self, tower):
            told.append(tower)
            return []

    told = []
    for name in ("llava-llama-mha", "qwen2_5_vl"):
        sl.apply(NAMES[name].build(), Told(keep=0.5)).remove()
    llava, qwen = told[0], told[-1]
    assert (llava.layers, llava.made, llava.whole, llava.class_token, llava.asking) == (3, 1, (0, 1, 2), True, "class")
    full = tuple(Qwen25VL().config().vision_config.fullatt_block_indexes)
    assert (qwen.made, qwen.whole, qwen.asking) == (qwen.layers - 1, full, "all")
    tower = replace(qwen, layers=9, whole=(3, 7), made=8)
    assert [tower.whole_from(layer) for layer in (0, 3, 4, 8)] == [3, 3, 7, 7]


class Named(sl.EntryStrategy):
    tower = ("layers",)
    look: str = "class"
    at: int = 0

    def looks_into(self, tower):
        return [(self.look, self.at)]

    def score(self, ctx):
        return (
            ctx.vision_hidden(self.at)[..., 0]
            if self.look == "hidden"
            else ctx.vision_attention(self.at, self.look).mean(1)
        )


@pytest.mark.parametrize(
    ("name", "strategy", "error", "message"),
    [
        ("paligemma", Named(keep=0.5), sl.UnsupportedModel, "no class token; ask for the rows of 'all' patches"),
        ("paligemma", Named(keep=0.5, at=3, look="all"), sl.InputError, "no tower layer 3.*layers 0 to 2"),
        ("paligemma", Named(keep=0.5, at=0, look="both"), sl.StrategyError, r"returned \('both', 0\); return pairs"),
        (
            "llava-llama-mha",
            [Named(keep=0.5, at=0), sl.ToMe(keep=0.5)],
            sl.UnsupportedModel,
            "tokens that become fewer",
        ),
    ],
)
@torch.no_grad()
def test_refused(name, strategy, error, message):
    tiny = NAMES[name]
    model = tiny.build()
    given = tinies.make_inputs(model, tiny, [[3, "image:0", 4]])
    with pytest.raises(error, match=message), sl.apply(model, strategy):
        model(**given)


@pytest.mark.parametrize("name", [own for own in ("minicpmv4_6", "got_ocr2") if own in NAMES])
@torch.no_grad()
def test_refused_by_models_that_lack_it(name):
    message = {"minicpmv4_6": "finer patches than those the projector takes", "got_ocr2": "shows no attention"}[name]
    with pytest.raises(sl.UnsupportedModel, match=message):
        sl.apply(NAMES[name].build(), Named(keep=0.5, look="hidden"))


@torch.no_grad()
def test_what_was_not_named_is_not_shown():
    class Forgetful(Named):
        def score(self, ctx):
            return ctx.vision_attention(1, "all").mean(1)

    tiny = NAMES["llava-llama-mha"]
    model = tiny.build()
    given = tinies.make_inputs(model, tiny, [[3, "image:0", 4]])
    wanted = r"Forgetful asks the vision tower for \('all', 1\).*return \(\('class', 0\), \('all', 1\)\) there"
    with sl.apply(model, Forgetful(keep=4)), pytest.raises(sl.InputError, match=wanted):
        model(**given)


@pytest.mark.parametrize("look", ["class", "all", "hidden"])
@torch.no_grad()
def test_features_encoded_ahead_keep_what_was_looked_at(look):
    tiny = NAMES["llava-llama-mha"]
    model = tiny.build("sdpa")
    given = tinies.make_inputs(model, tiny, [[5, "image:0", 9]])
    with sl.apply(model, Named(keep=4, look=look)) as run:
        ahead = model.model.get_image_features(given.pop("pixel_values"))
        looks = ahead._seeless_note.vision.looks
        assert (set(looks.taps), set(looks.states)) == ((set(), {0}) if look == "hidden" else ({0}, set()))
        if look == "class":  # of the queries, no more than is read
            assert looks.taps[0].calls[0].query.shape[2] == 1
        model(**given, mm_encoder_outputs={"image": ahead})
        scores = run.report.stages[0].scores[0]
        assert not looks.states and all(not tap.calls for tap in looks.taps.values())
        model(**given, mm_encoder_outputs={"image": ahead})
        assert torch.equal(run.report.stages[0].scores[0], scores)


class Pooling(sl.EntryStrategy):
    tower = ("pooling",)
    siglip: str | None = None

    def score(self, ctx):
        attention, pooled = ctx.pooling_attention(self.siglip), ctx.pooled(self.siglip)
        SEEN.setdefault("attention", []).append(attention.transpose(1, 2))
        SEEN.setdefault("pooled", []).append(pooled)
        SEEN.setdefault("frame", []).append(ctx.frame[..., None])
        return attention.mean(1)


class WithHead(type(NAMES["paligemma"])):
    """PaliGemma whose SigLIP has its pooling head."""

    def config(self):
        config = super().config()
        config.vision_config.vision_use_head = True
        return config


def by_hand(head, states):
    """`[heads, patches]` and `[width]` of one picture, float64, written out."""
    width = states.shape[-1]
    heads, x = head.attention.num_heads, states.double()
    weight, bias = head.attention.in_proj_weight.double(), head.attention.in_proj_bias.double()
    q, k, v = (
        part @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width]
        for i, part in enumerate((head.probe[0].double(), x, x))
    )
    q, k, v = (part.view(len(part), heads, -1).transpose(0, 1) for part in (q, k, v))
    rows = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
    joined = (rows @ v).transpose(0, 1).flatten(1) @ head.attention.out_proj.weight.double().T
    joined = (joined + head.attention.out_proj.bias.double()).float()
    return rows[:, 0], (joined + head.mlp(head.layernorm(joined)))[0]


@torch.no_grad()
def test_the_towers_own_pooling_head():
    tiny = WithHead()
    model, untouched = tiny.build("sdpa"), tiny.build("eager")
    given = tinies.make_inputs(model, tiny, [[3, "image:0", 4], [3, "image:1", 4]])
    found, report = run_looking(model, given, Pooling(keep=0.5, scope="crop"))
    output = untouched.model.vision_tower(given["pixel_values"], output_hidden_states=True)
    states = output.last_hidden_state  # behind the last norm
    pictures = zip(found["attention"].chunk(2), found["pooled"].chunk(2), states, output.pooler_output, strict=True)
    for attention, pooled, own, vector in pictures:
        rows, value = by_hand(untouched.model.vision_tower.head, own)
        assert torch.allclose(attention, rows.T.float(), **CLOSE)
        assert torch.allclose(pooled, vector.expand_as(pooled), atol=1e-5)
        assert torch.allclose(value, vector, atol=1e-5)
    assert "the pooling head's probe" in report.stages[0].signal


@pytest.fixture(scope="module")
def saved_siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(3)
    config = transformers.SiglipVisionConfig(**tower_options(image_size=CROP, patch_size=CROP // SIDE))
    model = transformers.SiglipVisionModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("row", [[3, "video:0", 4], [3, "image:0", 4]], ids=["frames", "tiles"])
@torch.no_grad()
def test_the_head_of_the_siglip_the_tower_came_from(saved_siglip, row, monkeypatch):
    tiny = NAMES["llava_onevision"]
    model, untouched = tiny.build("sdpa"), tiny.build("eager")
    given = tinies.make_inputs(model, tiny, [row])
    found, _ = run_looking(model, given, Pooling(keep=0.5, scope="crop", siglip=saved_siglip))
    _, states = plainly(untouched, given, monkeypatch)
    whole = transformers.SiglipVisionModel.from_pretrained(saved_siglip)
    patches = whole.post_layernorm(states[-1])
    vectors = torch.stack([by_hand(whole.head, own)[1] for own in patches])
    known = {tuple(x.tolist()) for x in found["pooled"]}
    assert len(known) == len(vectors)
    for vector in vectors:
        assert min((vector - torch.tensor(own)).abs().max() for own in known) < 1e-5
    if row[1].startswith("video"):
        rows = torch.stack([by_hand(whole.head, own)[0] for own in patches]).unflatten(-1, (SIDE, SIDE))
        pooled = torch.nn.functional.adaptive_avg_pool2d(rows, 3).flatten(2).transpose(1, 2)
        assert torch.allclose(found["attention"], pooled.flatten(0, 1).float(), **CLOSE)
        assert torch.equal(found["frame"][:, 0], torch.arange(4).repeat_interleave(9))


@pytest.mark.parametrize(
    ("name", "siglip", "message"),
    [
        ("llava-llama-mha", None, "is a 'clip_vision_model'"),
        ("paligemma", None, r"without SigLIP's pooling head .*pass siglip="),
        ("paligemma", "nowhere/at-all", "cannot be loaded as a SigLIP"),
    ],
)
@torch.no_grad()
def test_pooling_refused(name, siglip, message):
    tiny = NAMES[name]
    model = tiny.build()
    given = tinies.make_inputs(model, tiny, [[3, "image:0", 4]])
    with sl.apply(model, Pooling(keep=0.5, siglip=siglip)), pytest.raises(sl.UnsupportedModel, match=message):
        model(**given)
