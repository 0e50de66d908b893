"""Attention a strategy reads, of decoders and towers of many kinds, against the untouched model's own eager maps."""

import pytest
import torch
import transformers
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig

import seeless as sl
import tiny_models  # noqa: F401 - registers the backend "fused"

IMAGE, TOKENS, LAYERS = 99, 16, 4
SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "tie_word_embeddings": False,
}
FULL = ["full_attention"] * LAYERS
LATENT = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "llama_4_scaling_beta": 0.5,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
ALL = ("eager", "sdpa", "fused")
# What sets each apart, its config, and the kernels it has.
DECODERS = {
    "llama": ("plain", {}, ALL),
    "mistral": ("plain", {"sliding_window": None}, ALL),
    "qwen2": ("biases", {}, ALL),
    "qwen3": ("norms of queries and keys", {"layer_types": FULL}, ALL),
    "phi3": ("one fused projection", {"sliding_window": None}, ALL),
    "olmo2": ("norms behind the attention", {}, ALL),
    "glm": ("part of the dimensions turned, interleaved", {"partial_rotary_factor": 0.5}, ALL),
    "glm4": ("interleaved, norms before and behind", {"partial_rotary_factor": 0.5}, ALL),
    "cohere": ("interleaved, parallel blocks", {}, ALL),
    "cohere2": ("layers without positions", {"layer_types": FULL, "sliding_window": 512}, ALL),
    "gpt_oss": ("sinks", {"num_local_experts": 4, "layer_types": FULL, "sliding_window": 512}, ("eager",)),
    "gemma2": ("softcap", {"layer_types": FULL, "query_pre_attn_scalar": 16, "sliding_window": 512}, ("eager",)),
    "deepseek_v3": ("compressed keys", {**LATENT, "first_k_dense_replace": 1}, ("eager", "sdpa")),
    "ministral3": ("queries scaled by position", {"rope_parameters": YARN, "sliding_window": None}, ("eager", "sdpa")),
    "smollm3": ("positions in some layers only", {"no_rope_layers": [1, 0, 1, 0], "layer_types": FULL}, ALL),
}


def build(kind, backend, dtype):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **DECODERS[kind][1]})
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=[32, 32],
        patch_size=[4, 4],
    )
    whole = InternVLConfig(
        text_config=config, vision_config=vision, image_token_id=IMAGE, image_seq_length=TOKENS, downsample_ratio=0.5
    )
    model = InternVLForConditionalGeneration(whole)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model" in name:
                generator = torch.Generator().manual_seed(len(name) + parameter.numel())
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.25 * noise)
    model = model.to(dtype).eval()
    model.set_attn_implementation({"text_config": backend, "vision_config": "eager"})
    return model


def inputs(dtype, batch=2):
    """Rows of equal length, the image one token earlier in the second."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for row in range(batch):
        text = torch.randint(3, 90, (12,), generator=generator).tolist()
        rows.append(text[: 5 - row] + [IMAGE] * TOKENS + text[5 - row :])
    pixels = torch.randn(batch, 3, 32, 32, generator=generator).to(dtype)
    return {"input_ids": torch.tensor(rows), "pixel_values": pixels}


class Looking(sl.LayerStrategy):
    """Keeps every second token; notes the attention it was shown."""

    def score(self, ctx):
        SEEN.append(
            {
                "layer": ctx.layer,
                "index": ctx.index,
                "before": {q: ctx.attention(q, onto="row") for q in ("last", "text")},
                "coming": {q: ctx.attention(q, layer=ctx.layer, onto="row") for q in ("last", "text")},
                "keys": (ctx.keys(), ctx.keys(ctx.layer)),
            }
        )
        return -(ctx.index % 2).float() - ctx.index / 100


SEEN = []


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


CASES = [(kind, backend) for kind, (_, _, backends) in DECODERS.items() for backend in backends]


@pytest.mark.parametrize(("kind", "backend"), CASES, ids=lambda x: x)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@torch.no_grad()
def test_both_layers_around_a_stage_show_the_attention_of_the_model(kind, backend, use_cache):
    dtype = torch.float64 if kind not in ("gpt_oss", "deepseek_v3") else torch.float32
    given = inputs(dtype)
    maps = build(kind, "eager", dtype)(**given, output_attentions=True).attentions
    model = build(kind, backend, dtype)
    with sl.apply(model, Looking(keep=8, layer=2)):
        model(**given, use_cache=use_cache)
    assert sum(len(seen["index"]) for seen in SEEN) == 2
    for row, seen in enumerate(SEEN):
        for name, layer in (("before", 1), ("coming", 2)):
            own = maps[layer][row].float()
            assert (seen[name]["last"][0] - own[:, -1:]).abs().max() < 5e-6
            assert (seen[name]["text"][0] - own[:, -7 - row :]).abs().max() < 5e-6
            assert own[:, -7:].std() > 1e-3  # a map worth comparing


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_second_stage_shows_the_attention_on_what_the_first_one_left(kind):
    """As if the tokens that left had never been there: masked from the first stage's layer on."""
    dtype = torch.float64 if kind not in ("gpt_oss", "deepseek_v3") else torch.float32
    given, model = inputs(dtype, batch=1), build(kind, "eager", dtype)
    with sl.apply(model, Looking(keep=[8, 4], layer=[1, 3])) as run:
        model(**given)
    kept = run.report.stages[0].kept[0]
    columns = (given["input_ids"][0] == IMAGE).nonzero()[:, 0]
    gone = torch.ones(len(columns), dtype=torch.bool)
    gone[kept] = False
    stays = torch.ones(given["input_ids"].shape[1], dtype=torch.bool)
    stays[columns[gone]] = False
    untouched = build(kind, "eager", dtype)

    def mask(module, args, kwargs):
        full = kwargs["attention_mask"].clone()
        full[..., columns[gone]] = torch.finfo(full.dtype).min
        return args, {**kwargs, "attention_mask": full}

    for layer in untouched.model.language_model.layers[1:]:
        layer.register_forward_pre_hook(mask, with_kwargs=True)
    maps = untouched(**given, output_attentions=True).attentions
    for name, layer in (("before", 2), ("coming", 3)):
        own = maps[layer][0][:, stays][:, :, stays].float()
        assert (SEEN[1][name]["text"][0] - own[:, -7:]).abs().max() < 5e-6
    assert torch.equal(SEEN[1]["index"][0], kept)
