"""InternVL: one tile, or several and a thumbnail, in one run of placeholders; 8 x 8 patches make 4 x 4 tokens."""

from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig

from .base import END, IMAGE, START, Piece, Tiny, grids, normal, tower_options
from .llava import decoder


class InternVL(Tiny):
    name = "internvl"
    model_class = InternVLForConditionalGeneration

    def config(self):
        return InternVLConfig(
            text_config=decoder("qwen2", 2),
            vision_config=InternVLVisionConfig(**tower_options(image_size=[32, 32], patch_size=[4, 4])),
            image_token_id=IMAGE,
            image_seq_length=16,
            downsample_ratio=0.5,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        tiles = [1, 3, 1, 5][seed % 4]  # 2 or 4 tiles and their thumbnail
        ids = [START] + [IMAGE] * (16 * tiles) + [END]
        return Piece(ids, {"pixel_values": normal((tiles, 3, 32, 32), seed)}, grids(tiles, 4, 4))
