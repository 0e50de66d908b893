"""LLaVA-OneVision: LLaVA-NeXT's tiles, resampled where there are too many patches; pooled videos, one newline each."""

from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from .base import IMAGE, VIDEO, Piece, Tiny, grids, normal, siglip
from .llava import decoder
from .llava_next import pinpoints, stack_tiles, tiled_piece

CROP, SIDE, FRAMES, LIMIT = 24, 6, 4, 3
SIZES = [(38, 45), (23, 48), (48, 16), (48, 48)]  # the last has 12 x 12 patches, resampled to 10 x 10


class LlavaOnevision(Tiny):
    name = "llava_onevision"
    kinds = ("image", "video")
    model_class = LlavaOnevisionForConditionalGeneration

    def config(self):
        return LlavaOnevisionConfig(
            text_config=decoder("qwen2", 2),
            vision_config=siglip(CROP, CROP // SIDE),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=pinpoints(CROP),
            vision_aspect_ratio=f"anyres_max_{LIMIT}",
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return tiled_piece(seed, SIZES[seed % 4], CROP, SIDE, LIMIT)

    def video(self, seed: int) -> Piece:
        data = {"pixel_values_videos": normal((1, FRAMES, 3, CROP, CROP), 1000 + seed)}
        return Piece([VIDEO] * (9 * FRAMES + 1), data, grids(FRAMES, 3, 3))

    def collate(self, pieces, ids, mask) -> dict:
        videos = super().collate({"video": pieces.get("video", [])}, ids, mask)
        return {**stack_tiles(pieces["image"]), **videos}
