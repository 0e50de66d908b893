"""A config with the same parts, made so small that a random model of it runs in a moment."""

from collections.abc import Iterator
from typing import Any

LAYERS, TOWER_LAYERS = 4, 3
HIDDEN, TOWER_HIDDEN = 64, 32
HEADS, KV_HEADS = 4, 2
VOCABULARY = 128
PATCH, SIDE = 4, 32  # pixels
EXPERTS = 4

# What numbers are called in configs of transformers; `None` in the tower's column: as in the decoder.
SIZES: dict[str, tuple[int, int | None]] = {
    "num_hidden_layers": (LAYERS, TOWER_LAYERS),
    "num_layers": (LAYERS, TOWER_LAYERS),
    "n_layers": (LAYERS, TOWER_LAYERS),
    "depth": (LAYERS, TOWER_LAYERS),
    "hidden_size": (HIDDEN, TOWER_HIDDEN),
    "embed_dim": (HIDDEN, TOWER_HIDDEN),
    "intermediate_size": (96, 48),
    "moe_intermediate_size": (32, None),
    "shared_expert_intermediate_size": (32, None),
    "num_attention_heads": (HEADS, HEADS),
    "num_heads": (HEADS, HEADS),
    "head_dim": (HIDDEN // HEADS, TOWER_HIDDEN // HEADS),
    "n_routed_experts": (EXPERTS, None),
    "num_experts": (EXPERTS, None),
    "num_local_experts": (EXPERTS, None),
    "moe_num_experts": (EXPERTS, None),
    "num_experts_per_tok": (2, None),
    "experts_per_token": (2, None),
    "moe_k": (2, None),
    "n_group": (1, None),
    "topk_group": (1, None),
    "q_lora_rank": (24, None),
    "kv_lora_rank": (16, None),
    "qk_rope_head_dim": (8, None),
    "qk_nope_head_dim": (8, None),
    "v_head_dim": (12, None),
    "max_position_embeddings": (512, 512),
    "vocab_size": (VOCABULARY, VOCABULARY),
    "vocab_size_per_layer_input": (VOCABULARY, VOCABULARY),
    "hidden_size_per_layer_input": (8, None),
    "global_head_dim": (HIDDEN // HEADS, None),
    "linear_num_key_heads": (KV_HEADS, None),
    "linear_num_value_heads": (HEADS, None),
    "linear_key_head_dim": (32, None),
    "linear_value_head_dim": (32, None),
    "patch_size": (PATCH, PATCH),
    "image_size": (SIDE, SIDE),
    "projection_dim": (HIDDEN, HIDDEN),
    "projection_hidden_size": (TOWER_HIDDEN, TOWER_HIDDEN),
    "out_hidden_size": (HIDDEN, HIDDEN),
    "text_hidden_size": (HIDDEN, HIDDEN),
    "output_dim": (HIDDEN, HIDDEN),
    "mm_tokens_per_image": ((SIDE // PATCH // 2) ** 2, None),
    "d_model": (32, 32),
    "encoder_layers": (2, 2),
    "decoder_layers": (2, 2),
    "encoder_attention_heads": (HEADS, HEADS),
    "decoder_attention_heads": (HEADS, HEADS),
    "encoder_ffn_dim": (48, 48),
    "decoder_ffn_dim": (48, 48),
    "base_channels": (32, 32),
    "latent_channels": (32, 32),
    "num_embeddings": (16, 16),
    "image_token_embed_dim": (HIDDEN, HIDDEN),
    "output_channels": (8, 8),
    "mlp_dim": (48, 48),
}
LEFT_TO_CHECKPOINTS = ("num_experts_per_tok", "head_dim")  # no number in some classes of configs
LISTS_OF_LAYERS = ("layer_types", "mlp_layer_types", "no_rope_layers")
FEATURE_LAYERS = (-2, -3, -1, 1, 2)  # of a tower of three
# Numbers of layers among the tower's.
LAYERS_OF_THE_TOWER = {
    "deepstack_visual_indexes": [0, 1],
    "fullatt_block_indexes": [1],
    "global_attn_indexes": [1],
    "insert_layer_id": 1,
}
OF_NO_SIZE = ("model_type", "id2label", "label2id", "transformers_version", "architectures")


def shrunk(config: Any, mrope: bool = False) -> Any:
    """A small config of the same class; what `config` says besides sizes stays.

    Args:
        config: of a vision-language model of `transformers`.
        mrope: whether its positions have three axes, also where the config leaves their shares to the model.
    """
    text = config.get_text_config()
    tower = getattr(config, "vision_config", None)
    widths: dict[int, int] = {}
    for part, size in ((text, HIDDEN), (tower, TOWER_HIDDEN)):
        if (width := getattr(part, "hidden_size", None)) is not None:
            widths.setdefault(width, size)
    given = _part(config.to_dict(), widths, tower=False)
    if tower is not None and (tiles := given.get("image_grid_pinpoints")) is not None:
        given["image_grid_pinpoints"] = [[side * SIDE // tower.image_size for side in tile] for tile in tiles]
    if mrope:
        text_part = given.get("text_config", given)
        text_part["rope_parameters"] = _rope({"mrope_section": [1, 1, 1], **text_part["rope_parameters"]}, 1.0)
    given["tie_word_embeddings"] = False
    _name_tokens(given)
    small = type(config)(**{key: value for key, value in given.items() if key not in OF_NO_SIZE})
    if (queries := getattr(small, "qformer_config", None)) is not None:  # heads are counted as if of 64
        queries.num_attention_heads = HEADS
    return small


def _part(given: dict[str, Any], widths: dict[int, int], tower: bool) -> dict[str, Any]:
    result = dict(given)
    for name, value in given.items():
        if name in OF_NO_SIZE[1:]:
            del result[name]
        elif name == "per_layer_config" and isinstance(value, dict):
            result[name] = {layer: own for layer, own in value.items() if int(layer) < LAYERS}
        elif isinstance(value, dict) and name.endswith("_config"):
            result[name] = _part(value, widths, tower=name in ("vision_config", "adapter_config"))
        elif name == "num_position_embeddings" and "image_size" in given:  # else they are drawn out over any picture
            result[name] = (SIDE // PATCH) ** 2
        elif name == "head_dim" and value is not None and value == given.get("qk_rope_head_dim"):
            result[name] = SIZES["qk_rope_head_dim"][0]
        elif name in SIZES and (value is not None or name in LEFT_TO_CHECKPOINTS):
            own, other = SIZES[name]
            size = other if tower and other is not None else own
            size = HIDDEN if tower and name == "hidden_size" and "embed_dim" in given else size  # what comes out of it
            result[name] = [size] * len(value) if isinstance(value, list | tuple) else size
        elif name in ("num_key_value_heads", "num_kv_heads") and value is not None:
            heads = given.get("num_attention_heads")
            result[name] = HEADS if tower or value == heads else KV_HEADS
        elif name in LISTS_OF_LAYERS and isinstance(value, list):
            result[name] = value[: TOWER_LAYERS if tower else LAYERS]
        elif name in LAYERS_OF_THE_TOWER:
            result[name] = LAYERS_OF_THE_TOWER[name]
        elif name == "deepstack_layer_map" and value is not None:  # the first is to enter first
            ranks = sorted(after for _, after in value)
            result[name] = [(_layer(layer), min(ranks.index(after), LAYERS - 1)) for layer, after in value]
        elif name == "spatial_target_layers" and value is not None:
            result[name] = [LAYERS - 1] * len(value)
        elif name in ("vision_feature_layer", "vision_feature_layers"):
            result[name] = list(FEATURE_LAYERS[: len(value)]) if isinstance(value, list | tuple) else _layer(value)
        elif name == "first_k_dense_replace":
            result[name] = min(value, 1)
        elif name == "window_size" and tower and isinstance(value, int):
            result[name] = 4 * PATCH
        elif name in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            result[name] = _rope(value, given.get("partial_rotary_factor") or 1.0)
        elif (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value in widths
            and name.endswith(("size", "dim"))
        ):
            result[name] = widths[value]
    return result


def _layer(number: int | None) -> int | None:
    return None if number is None else max(-TOWER_LAYERS, min(number, TOWER_LAYERS))


def _rope(given: dict[str, Any], turned: float) -> dict[str, Any]:
    turned = given.get("partial_rotary_factor") or turned
    result = {key: _rope(value, turned) if isinstance(value, dict) else value for key, value in given.items()}
    parts: Any = result.get("mrope_section")
    if parts is not None:
        result["mrope_section"] = _shares(parts, int(HIDDEN // HEADS * turned) // 2)
    return result


def _shares(parts: list[int], total: int) -> list[int]:
    """Whole numbers in the proportions of `parts` that add up to a total."""
    exact = [part * total / sum(parts) for part in parts]
    whole = [int(share) for share in exact]
    for place in sorted(range(len(parts)), key=lambda i: whole[i] - exact[i])[: total - sum(whole)]:
        whole[place] += 1
    return whole


def _name_tokens(given: dict[str, Any]) -> None:
    """Give every special token a number of its own in the small vocabulary: from its end, padding 0, no end of text."""
    numbers: dict[int, int] = {}
    free = iter(range(VOCABULARY - 1, 0, -1))
    for part, name, value in _tokens(given):
        if name == "pad_token_id":
            part[name] = 0
        elif name == "eos_token_id":
            part[name] = None
        elif isinstance(value, int):
            if value not in numbers:
                numbers[value] = next(free)
            part[name] = numbers[value]


def _tokens(given: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    for name, value in list(given.items()):
        if isinstance(value, dict):
            yield from _tokens(value)
        elif str(name).endswith(("_token_id", "_token_index", "_patch_id")):
            yield given, name, value
