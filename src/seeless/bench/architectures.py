"""Models by name and real shape, for random weights: what is timed does not depend on what they have learnt."""

from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import seeless as sl
from seeless.eval.errors import InvalidRequest


@dataclass(frozen=True)
class Architecture:
    """One model as its makers published it.

    Args:
        config: of `transformers`, as JSON; placeholders and sizes included.
        processor: the image processor's `preprocessor_config.json`.
        picture: height and width in pixels of the picture a benchmark shows unless told.
    """

    config: dict[str, Any]
    processor: dict[str, Any]
    picture: tuple[int, int]


def _llama(hidden: int, intermediate: int, layers: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    same = {"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    return {"model_type": "llama", **sizes, "num_attention_heads": heads, "num_key_value_heads": heads, **same}


def _qwen2_7b(vocabulary: int) -> dict[str, Any]:
    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": vocabulary}
    return {**sizes, "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768}


def _tower(kind: str, image: int, patch: int, layers: int, hidden: int, intermediate: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    return {"model_type": kind, **sizes, "num_attention_heads": 16, "image_size": image, "patch_size": patch}


CLIP = {**_tower("clip_vision_model", 336, 14, 24, 1024, 4096), "projection_dim": 768}
SIGLIP = {**_tower("siglip_vision_model", 384, 14, 26, 1152, 4304), "vision_use_head": False}
SECOND_LAST = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
SQUARE = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336}, "crop_size": 336}
QWEN_TOKENS = {"image_token_id": 151655, "video_token_id": 151656}
QWEN_TOKENS |= {"vision_start_token_id": 151652, "vision_end_token_id": 151653}
NEXT_TILES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION_TILES = [[384 * down, 384 * across] for down in range(1, 7) for across in range(1, 7)]
TILED = {"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 336}, "crop_size": 336}

ARCHITECTURES = {
    "llava-1.5-7b": Architecture(
        {
            "model_type": "llava",
            "text_config": _llama(4096, 11008, 32, 32),
            "vision_config": CLIP,
            "image_token_index": 32000,
            **SECOND_LAST,
        },
        SQUARE,
        (336, 336),
    ),
    "llava-1.5-13b": Architecture(
        {
            "model_type": "llava",
            "text_config": _llama(5120, 13824, 40, 40),
            "vision_config": CLIP,
            "image_token_index": 32000,
            **SECOND_LAST,
        },
        SQUARE,
        (336, 336),
    ),
    "llava-next-7b": Architecture(
        {
            "model_type": "llava_next",
            "text_config": _llama(4096, 11008, 32, 32),
            "vision_config": CLIP,
            "image_token_index": 32000,
            "image_grid_pinpoints": NEXT_TILES,
            **SECOND_LAST,
        },
        {**TILED, "image_grid_pinpoints": NEXT_TILES},
        (672, 672),
    ),
    "llava-onevision-7b": Architecture(
        {
            "model_type": "llava_onevision",
            "text_config": {"model_type": "qwen2", **_qwen2_7b(152000)},
            "vision_config": SIGLIP,
            "image_token_index": 151646,
            "video_token_index": 151647,
            "image_grid_pinpoints": ONEVISION_TILES,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        {
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": 384, "width": 384},
            "image_grid_pinpoints": ONEVISION_TILES,
        },
        (768, 768),
    ),
    "qwen2.5-vl-7b": Architecture(
        {
            "model_type": "qwen2_5_vl",
            "text_config": {
                **_qwen2_7b(152064),
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            },
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "num_heads": 16,
                "out_hidden_size": 3584,
                "fullatt_block_indexes": [7, 15, 23, 31],
                "patch_size": 14,
                "window_size": 112,
            },
            **QWEN_TOKENS,
        },
        {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14},
        (1008, 1008),
    ),
    "qwen3-vl-8b": Architecture(
        {
            "model_type": "qwen3_vl",
            "text_config": {
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 151936,
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
            },
            "vision_config": {
                "depth": 27,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_heads": 16,
                "out_hidden_size": 4096,
                "patch_size": 16,
                "deepstack_visual_indexes": [8, 16, 24],
                "num_position_embeddings": 2304,
            },
            **QWEN_TOKENS,
        },
        {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 16},
        (1024, 1024),
    ),
    "internvl3-8b": Architecture(
        {
            "model_type": "internvl",
            "text_config": {"model_type": "qwen2", **_qwen2_7b(151674)},
            "vision_config": {
                **_tower("internvl_vision", 448, 14, 24, 1024, 4096),
                "image_size": [448, 448],
                "patch_size": [14, 14],
            },
            "image_token_id": 151667,
            "image_seq_length": 256,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
            "vision_feature_layer": -1,
        },
        {
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": {"height": 448, "width": 448},
            "crop_to_patches": True,
            "max_patches": 12,
        },
        (896, 896),
    ),
    "video-llava-7b": Architecture(
        {
            "model_type": "video_llava",
            "text_config": _llama(4096, 11008, 32, 32),
            "vision_config": {**CLIP, "image_size": 224},
            "image_token_index": 32000,
            "video_token_index": 32001,
            "image_seq_length": 256,
            "video_seq_length": 2056,
            **SECOND_LAST,
        },
        {**SQUARE, "size": {"shortest_edge": 224}, "crop_size": 224},
        (224, 224),
    ),
}


def scaled(name: str, scale: Fraction, layers: int | None = None) -> dict[str, Any]:
    """The config of an architecture whose decoder and tower are so much narrower than the real ones.

    Heads keep their size, there are fewer of them: at least one. Vocabulary, patches and tokens stay.

    Args:
        layers: of the decoder; the tower is as much shallower. None: both as deep as the real ones.

    Raises:
        BudgetError: no architecture has this name.
        InvalidRequest: it has fewer layers than that.

    >>> scaled("llava-1.5-7b", Fraction(1, 8))["text_config"]["hidden_size"]
    512
    """
    if name not in ARCHITECTURES:
        raise sl.BudgetError(f"no architecture is called {name!r}; there are {', '.join(ARCHITECTURES)}")
    config = deepcopy(ARCHITECTURES[name].config)
    text, tower = config["text_config"], config["vision_config"]
    _narrow(text, scale, "num_attention_heads")
    _narrow(tower, scale, "num_heads" if "num_heads" in tower else "num_attention_heads")
    if "out_hidden_size" in tower:
        tower["out_hidden_size"] = text["hidden_size"]
    if layers is not None:
        _shorten(name, text, tower, layers)
    return config


def _shorten(name: str, text: dict[str, Any], tower: dict[str, Any], layers: int) -> None:
    whole, depth = text["num_hidden_layers"], "depth" if "depth" in tower else "num_hidden_layers"
    if layers > whole:
        raise InvalidRequest(f"{name} has {whole} decoder layers, so there are no {layers}; give a smaller number")
    text["num_hidden_layers"] = layers
    before, tower[depth] = tower[depth], max(2, round(tower[depth] * layers / whole))
    for places in ("fullatt_block_indexes", "deepstack_visual_indexes"):  # as far into the tower as they were
        if places in tower:
            tower[places] = sorted({(place + 1) * tower[depth] // before - 1 for place in tower[places]} - {-1})


def _narrow(sizes: dict[str, Any], scale: Fraction, heads: str) -> None:
    size = sizes["hidden_size"] // sizes[heads]
    sizes[heads] = max(1, round(sizes[heads] * scale))
    if "num_key_value_heads" in sizes:
        wanted = max(1, round(sizes["num_key_value_heads"] * scale))
        sizes["num_key_value_heads"] = max(n for n in range(1, wanted + 1) if sizes[heads] % n == 0)
    sizes["hidden_size"] = sizes[heads] * size
    sizes["intermediate_size"] = max(8, round(sizes["intermediate_size"] * scale / 8) * 8)
