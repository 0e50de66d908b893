"""Models with layers that look back over fewer tokens than a conversation with a picture or two has."""

from transformers import (
    Cohere2Config,
    Exaone4Config,
    GptOssConfig,
    LlavaConfig,
    MinistralConfig,
    MistralConfig,
    Qwen2Config,
)

from .base import IMAGE, LAYERS, clip, text_options
from .gemma3 import Gemma3
from .gemma4 import Gemma4, Gemma4Small
from .llava import Llava
from .paligemma import PaliGemma2

SHORT = 20
MIXED = (["sliding_attention"] * 2 + ["full_attention"]) * 2


def short(window: int = SHORT, **options) -> dict:
    return text_options(sliding_window=window, **options)


DECODERS = {
    "mistral": lambda: MistralConfig(**short()),  # in all layers
    "qwen2": lambda: Qwen2Config(**short(use_sliding_window=True, max_window_layers=2)),
    "ministral": lambda: MinistralConfig(**short(layer_types=MIXED)),
    "gpt_oss": lambda: GptOssConfig(**short(layer_types=MIXED, num_local_experts=4, num_experts_per_tok=2)),
    "cohere2": lambda: Cohere2Config(**short(layer_types=MIXED, logit_scale=1.0)),
    "exaone4": lambda: Exaone4Config(**short(layer_types=MIXED)),
}


class LlavaOn(Llava):
    """LLaVA on a decoder with a short window."""

    def __init__(self, kind: str):
        self.kind = kind
        self.name = f"llava-{kind}-windowed"
        global_ones_turn = kind not in ("cohere2", "exaone4")
        self.turns = [each == "sliding_attention" or global_ones_turn for each in MIXED]
        self.backends = ("eager",) if kind == "gpt_oss" else ("eager", "sdpa")

    def kernels(self, backend: str):
        only_eager = self.kind == "gpt_oss" and backend == "sdpa"
        return {"text_config": "eager", "vision_config": "sdpa"} if only_eager else backend

    def config(self):
        return LlavaConfig(
            text_config=DECODERS[self.kind](),
            vision_config=clip(32, 8),
            image_token_index=IMAGE,
            image_seq_length=16,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )


class Gemma3Short(Gemma3):
    name = "gemma3-windowed"
    window = 24


class Gemma4Short(Gemma4):
    """Shorter than an image: its first tokens and its last do not see each other."""

    name = "gemma4-windowed"
    window = 12
    options: dict = {**Gemma4.options, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2}
    options["moe_intermediate_size"] = 32


class Gemma4SmallShort(Gemma4Small):
    """A layer of either kind takes keys and values of an earlier one."""

    name = "gemma4-small-windowed"
    window = SHORT
    layers = ["full_attention", "sliding_attention"] * 3
    options: dict = {**Gemma4Small.options, "num_kv_shared_layers": 2}


class PaliGemma2Short(PaliGemma2):
    name = "paligemma2-windowed"
    window = SHORT


WINDOWED = (Gemma3Short(), Gemma4Short(), Gemma4SmallShort(), PaliGemma2Short(), *map(LlavaOn, DECODERS))

__all__ = ["LAYERS", "SHORT", "WINDOWED", "LlavaOn"]
