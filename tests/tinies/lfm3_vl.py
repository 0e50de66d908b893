"""LFM3-VL: convolutions, sliding windows and full attention in the decoder, convolutions and attention in the tower."""

import transformers

from .base import LAYERS, text_options
from .qwen2_vl import MARKERS, MERGE, PATCH, TEMPORAL
from .qwen3_vl import Qwen3VL

CONV, FULL, SLIDING = "conv", "full_attention", "sliding_attention"


class Lfm3VL(Qwen3VL):
    name = "lfm3_vl"
    new_token_types: dict = {}
    kinds_of_layers = (CONV, FULL, CONV, CONV, SLIDING, FULL)
    window = 256

    @property
    def model_class(self):  # not in all releases
        return transformers.Lfm3VlForConditionalGeneration

    def config(self):
        kinds = list(self.kinds_of_layers)
        assert len(kinds) == LAYERS
        tower = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "layer_types": [CONV, FULL, FULL, CONV],
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL,
        }
        return transformers.Lfm3VlConfig(
            text_config=transformers.Lfm3Config(
                **text_options(layer_types=kinds, sliding_window=self.window, conv_L_cache=3)
            ),
            vision_config=tower,
            projector_hidden_size=48,
            tie_word_embeddings=False,
            **MARKERS,
        )

    def collate(self, pieces, ids, mask) -> dict:
        return {key: value for key, value in super().collate(pieces, ids, mask).items() if key != "mm_token_type_ids"}


class Lfm3Short(Lfm3VL):
    """A window that is shorter than a picture, before and behind layers without attention."""

    name = "lfm3_vl-windowed"
    kinds_of_layers = (CONV, SLIDING, FULL, CONV, SLIDING, CONV)
    window = 12
