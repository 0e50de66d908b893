"""EXAONE 4.5: as Qwen2.5-VL, with two key heads in the tower, and positions of one axis."""

from transformers import Exaone4_5_Config, Exaone4_5_ForConditionalGeneration, Exaone4Config

from .base import IMAGE, VIDEO, text_options
from .qwen2_vl import MERGE, PATCH, TEMPORAL, Qwen2VL


class Exaone45(Qwen2VL):
    name = "exaone4_5"
    model_class = Exaone4_5_ForConditionalGeneration
    new_token_types: dict = {}

    def config(self):
        layers = (["sliding_attention"] * 2 + ["full_attention"]) * 2
        return Exaone4_5_Config(
            text_config=Exaone4Config(**text_options(layer_types=layers, sliding_window=256)),
            vision_config={
                "depth": 4,
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "num_heads": 4,
                "num_key_value_heads": 2,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": TEMPORAL,
                "window_size": 2 * MERGE * PATCH,
                "fullatt_block_indexes": [1, 3],
            },
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
        )

    def collate(self, pieces, ids, mask) -> dict:
        found = super().collate(pieces, ids, mask)
        del found["mm_token_type_ids"]
        return found
