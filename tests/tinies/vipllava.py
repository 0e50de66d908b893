"""ViP-LLaVA: the projector takes two layers of a CLIP tower side by side."""

from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

from seeless.core.host import FEATURE_LAYERS

from .base import IMAGE, clip
from .llava import Llava, decoder


class VipLlava(Llava):
    model_class = VipLlavaForConditionalGeneration
    sparse = True

    def __init__(self):
        self.name = "vipllava"

    def config(self):
        layers = next(name for name in FEATURE_LAYERS if hasattr(VipLlavaConfig, name))
        return VipLlavaConfig(
            text_config=decoder("llama", 4),
            vision_config=clip(32, 8),
            image_token_index=IMAGE,
            image_seq_length=16,
            tie_word_embeddings=False,
            **{layers: [1, -2]},
        )
