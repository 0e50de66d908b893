"""Granite 4 Vision: LLaVA-NeXT's tiles; eight features of every token enter between decoder layers, none before them.

Each stands for four patches: of windows of 4 x 4 a Q-Former makes 2 x 2. Two would enter layers there are none of.
"""

from transformers import (
    Granite4VisionConfig,
    Granite4VisionForConditionalGeneration,
    Granite4VisionTextConfig,
    SiglipVisionConfig,
)

from .base import IMAGE, Piece, Tiny, text_options, tower_options
from .llava_next import pinpoints, stack_tiles, tiled_piece


class Granite4Vision(Tiny):
    name = "granite4_vision"
    model_class = Granite4VisionForConditionalGeneration
    sparse = True

    def config(self):
        text = text_options(
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            embedding_multiplier=3.0,
            logits_scaling=2.0,
            residual_multiplier=0.8,
            attention_multiplier=0.3,
        )
        tower = tower_options(hidden_size=64, image_size=32, patch_size=4, vision_use_head=False)
        queries = {
            "num_hidden_layers": 1,
            "hidden_size": 64,
            "encoder_hidden_size": 64,
            "num_attention_heads": 1,
            "intermediate_size": 48,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "use_qformer_text_input": False,
        }
        return Granite4VisionConfig(
            text_config=Granite4VisionTextConfig(**text),
            vision_config=SiglipVisionConfig(**tower),
            qformer_config={"model_type": "blip_2_qformer", **queries},
            image_token_index=IMAGE,
            image_grid_pinpoints=pinpoints(32),
            vision_feature_select_strategy="full",
            downsample_rate="2/4",
            deepstack_layer_map=[[-3, 2], [1, 7], [-1, 0]],
            spatial_vision_layer=-2,
            spatial_target_layers=[1, 3, 4, 9],
            projector_dropout=0.0,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return tiled_piece(seed, [(51, 60), (30, 64), (64, 64), (64, 25)][seed % 4], 32, 4)

    def collate(self, pieces, ids, mask) -> dict:
        return stack_tiles(pieces["image"])
