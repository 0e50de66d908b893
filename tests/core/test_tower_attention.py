"""What strategies read of vision towers of many kinds, against the weights of the model's own eager kernel."""

import sys

import pytest
import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.vision_utils import get_vision_window_index

import seeless as sl
import tinies
import tiny_models  # noqa: F401 - registers the backend "fused"
from seeless.core.family import Family
from seeless.families import families
from seeless.strategies.fastervlm import FasterVLM
from tinies import TINIES
from tinies.qwen2_vl import MARKERS, Qwen2VL, qwen_text

NAMES = {str(tiny): tiny for tiny in TINIES}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}


class Glm(Qwen2VL):
    """GLM-4V and GLM-OCR: towers like Qwen2-VL's, the latter with norms of queries and keys."""

    kinds = ("image",)

    def __init__(self, name, config_class, model_class):
        self.name, self.config_class, self.model_class = name, config_class, model_class

    def config(self):
        markers = {name: token for name, token in MARKERS.items() if name.endswith("token_id")}
        text = {**qwen_text(), "head_dim": 16, "rope_parameters": ROPE}
        tower = {"depth": 3, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "out_hidden_size": 64}
        tower |= {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2, "image_size": 32}
        return self.config_class(text_config=text, vision_config=tower, tie_word_embeddings=False, **markers)


GLMS = {
    "glm4v": Glm("glm4v", transformers.Glm4vConfig, transformers.Glm4vForConditionalGeneration),
    "glm_ocr": Glm("glm_ocr", transformers.GlmOcrConfig, transformers.GlmOcrForConditionalGeneration),
}


@pytest.fixture(autouse=True)
def _families_of_the_test(monkeypatch):
    for name in GLMS:
        family = Family(
            title=name,
            model_types=(name,),
            tower="visual",
            projector="visual.merger",
            tower_layers=("blocks",),
            merge="vision_config.spatial_merge_size",
            merged="consecutive",
            projected=False,
            grids={"image": "image_grid_thw"},
            mrope=True,
        )
        monkeypatch.setitem(families(), name, family)


class Looking(sl.EntryStrategy):
    def score(self, ctx):
        SEEN.append(
            {
                "attention": ctx.vision_attention(),
                "keys": ctx.vision_keys(),
                "reader": ctx.reader_attention(),
                "reader_keys": ctx.reader_keys(),
            }
        )
        return ctx.visual[..., 0]


SEEN = []


def watched(model, layer):
    """`run() -> [(query, key, weights)]` of the eager kernel's calls by one tower layer of an untouched model."""
    module = next(m for name, m in layer.named_modules() if name.split(".")[-1] in ("self_attn", "attn", "attention"))
    home = sys.modules[type(module).__module__]
    stock, calls = home.eager_attention_forward, []

    def spy(asking, query, key, value, *mask, **options):
        output, weights = stock(asking, query, key, value, *mask, **options)
        if asking is module:
            calls.append((query, key, weights))
        return output, weights

    return home, spy, calls


def run_watched(model, layer, given, monkeypatch):
    home, spy, calls = watched(model, layer)
    with monkeypatch.context() as patch:
        patch.setattr(home, "eager_attention_forward", spy)
        model(**given)
    return calls


def per_patch(maps, lead):
    """`[patches, ...]`: the class token's row, or the mean of all rows, of maps `[batch, ..., queries, keys]`."""
    rows = [m[..., 0, 1:] if lead else m.mean(-2) for m in maps]
    return torch.cat([row.movedim(-1, 1).flatten(0, 1) for row in rows])


def to_tokens(patches, model, tiny, given):
    """Means over the patches of a token, in the decoder's order, worked out from the model's own configuration."""
    config, name = model.config, str(tiny)
    if name.startswith(("qwen", "glm")):
        tokens = patches.unflatten(0, (-1, 4)).mean(1)
        if name != "qwen2_5_vl":
            return tokens
        tower = config.vision_config
        order, _ = get_vision_window_index(given["image_grid_thw"], 2, tower.window_size, tower.patch_size)
        result = torch.empty_like(tokens)
        result[order] = tokens
        return result
    merge = {"internvl": 2, "smolvlm": 2, "idefics3": 2, "mistral3": 2, "gemma3": 2}.get(name)
    if merge is None:
        return patches
    if name == "mistral3":
        sides = [(int(h) // 4, int(w) // 4) for h, w in given["image_sizes"]]
    else:
        side = config.vision_config.image_size
        side = (side if isinstance(side, int) else side[0]) // 4
        sides = [(side, side)] * (len(patches) // side**2)
    parts = []
    for own, (height, width) in zip(patches.split([h * w for h, w in sides]), sides, strict=True):
        grid = own.unflatten(0, (height // merge, merge, width // merge, merge))
        parts.append(grid.mean((1, 3)).flatten(0, 1))
    return torch.cat(parts)


CASES = [
    ("llava-llama-mha", "CLIP, a class token"),
    ("paligemma", "SigLIP"),
    ("internvl", "a class token, norms, merged by pixel shuffle"),
    ("mistral3", "Pixtral, pictures of two sizes in one sequence"),
    ("qwen2_vl", "pieces of one sequence"),
    ("qwen2_5_vl", "attention windows"),
    ("qwen3_vl", "DeepStack"),
    ("smolvlm", "padding tiles"),
    ("glm4v", "a downsampling convolution"),
    ("glm_ocr", "norms of queries and keys"),
]
LEADS = ("llava-llama-mha", "internvl")
PROMPTS = {
    "smolvlm": [[3, "image:0", 4], [5, "image:1", 4]],
    "llava-llama-mha": [[3, "image:0", 4], [3, "image:1", 4]],
    "internvl": [[3, "image:1", 4]],
    "paligemma": [[3, "image:0", 4]],
}


def packed(module, query, key, value, mask=None, attention_mask=None, scaling=None, cu_seq_lens_q=None, **options):
    """All pieces in one call, as flash attention takes them."""
    seq = torch.arange(query.shape[2])
    piece = torch.searchsorted(cu_seq_lens_q, seq, right=True)
    scores = (query @ key.transpose(2, 3) * scaling).masked_fill(piece[:, None] != piece, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("flash_attention_tiny", packed)


@pytest.mark.parametrize("backend", ["eager", "sdpa", "fused", "packed"])
@pytest.mark.parametrize(("name", "what"), CASES, ids=lambda x: x.split(",")[0])
@torch.no_grad()
def test_the_tower_shows_its_own_attention_and_keys(name, what, backend, monkeypatch):
    tiny = GLMS.get(name) or NAMES[name]
    untouched, model = tiny.build("eager"), tiny.build("eager")
    given = tinies.make_inputs(model, tiny, PROMPTS.get(name, [[3, "image:0", 4, "image:1", 5]]))
    if backend == "packed":
        if not name.startswith(("qwen", "glm")):
            pytest.skip("takes its pictures one by one, whatever the kernel")
        for part in model.model.visual.modules():
            if hasattr(part, "config"):
                part.config._attn_implementation = "flash_attention_tiny"
    elif backend != "eager":
        tower = "sdpa" if backend == "fused" and name in ("mistral3", "smolvlm") else backend
        model.set_attn_implementation({"text_config": "sdpa", "vision_config": tower})
    SEEN.clear()
    with sl.apply(model, Looking(keep=0.5, scope="crop")) as run:
        model(**given)
    layers = next(m for n, m in untouched.named_modules() if n.split(".")[-1] in ("blocks", "layers", "layer"))
    made = getattr(model.config, "vision_feature_layer", -1)
    made = made % (len(layers) + 1) - 1
    reader = min(made + 1, len(layers) - 1)
    role = "the class token's single-head attention" if name in LEADS else "the mean single-head attention received"
    assert f"{role} in tower layer {reader}" in run.report.stages[0].signal

    lead = name in LEADS
    calls = run_watched(untouched, layers[made], given, monkeypatch)
    attention = to_tokens(per_patch([weights for _, _, weights in calls], lead), untouched, tiny, given)
    keys = [key[:, :, int(lead) :].transpose(1, 2).flatten(0, 1) for _, key, _ in calls]
    keys = to_tokens(torch.cat(keys), untouched, tiny, given)
    calls = run_watched(untouched, layers[reader], given, monkeypatch)
    maps, wide = [], []
    for query, key, weights in calls:
        q, k = (x.double().transpose(1, 2).flatten(2) for x in (query, key))
        hidden = (weights.sum(1) == 0) if name == "mistral3" else torch.zeros_like(weights[:, 0], dtype=torch.bool)
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
        maps.append(scores.softmax(-1))
        wide.append(k[:, int(lead) :].flatten(0, 1))
    single = to_tokens(per_patch([m[:, None] for m in maps], lead), untouched, tiny, given)[:, 0]
    wide = to_tokens(torch.cat(wide), untouched, tiny, given)

    def table(signal):
        return torch.cat([x.movedim(-1, 1).flatten(0, 1) if x.ndim == 3 else x.flatten() for x in signal])

    if name == "mistral3":  # pictures see themselves only, so a mean over all rows is one over another number of rows
        sizes = [(int(h) // 4) * (int(w) // 4) for h, w in given["image_sizes"]]
        share = torch.cat([torch.full((size // 4,), sum(sizes) / size) for size in sizes])
        attention, single = attention * share[:, None], single * share
    close = {"atol": 2e-6, "rtol": 1e-4}
    assert torch.allclose(table([seen["attention"] for seen in SEEN]), attention, **close)
    assert torch.allclose(table([seen["reader"] for seen in SEEN]).double(), single, **close)
    own = torch.cat([seen["keys"].transpose(1, 2).flatten(0, 1) for seen in SEEN])
    assert torch.allclose(own, keys, atol=1e-5, rtol=1e-4)
    assert torch.allclose(torch.cat([seen["reader_keys"].flatten(0, 1) for seen in SEEN]).double(), wide, atol=1e-5)
    assert attention.std() > 1e-3 and single.std() > 1e-4


def test_what_is_not_declared_is_not_shown(tiny):
    class Forgetful(FasterVLM):
        def score(self, ctx):
            return ctx.vision_keys().norm(dim=-1).mean(1)

    model = NAMES["llava-llama-mha"].build()
    given = tinies.make_inputs(model, NAMES["llava-llama-mha"], [[3, "image:0", 4]])
    wanted = r"Forgetful asks the vision tower for 'keys'.*write tower = \('attention', 'keys'\) in the class"
    with torch.no_grad(), sl.apply(model, Forgetful(keep=4)), pytest.raises(sl.InputError, match=wanted):
        model(**given)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl", "qwen2_vl", "llava_onevision"])
@torch.no_grad()
def test_videos_encoded_by_the_images_method_outside_a_forward(name):
    model = next(variant for variant in tinies.TINIES if variant.name == name).build("eager")
    inputs = tinies.make_inputs(model, NAMES[name], [tinies.RAGGED_VIDEO[0]])
    inner = model.model
    given = {key: value for key, value in inputs.items() if "video" in key}
    with sl.apply(model, FasterVLM(keep=0.5)) as run:
        features = inner.get_video_features(**given).pooler_output
        out = model.generate(**inputs, max_new_tokens=2, do_sample=False)
        assert len(features) and out.shape[0] == 1 and run.report.n_after < run.report.n_before
