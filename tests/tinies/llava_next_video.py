"""LLaVA-NeXT-Video: LLaVA-NeXT's images; video frames pooled 2 x 2, without newlines."""

from transformers import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

from .base import IMAGE, VIDEO, Piece, clip, grids, normal
from .llava import decoder
from .llava_next import pinpoints, tiled_piece
from .llava_onevision import CROP, FRAMES, SIDE, SIZES, LlavaOnevision


class LlavaNextVideo(LlavaOnevision):
    name = "llava_next_video"
    model_class = LlavaNextVideoForConditionalGeneration

    def config(self):
        return LlavaNextVideoConfig(
            text_config=decoder("llama", 4),
            vision_config=clip(CROP, CROP // SIDE),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=pinpoints(CROP),
            spatial_pool_mode="average",
            spatial_pool_stride=2,
            image_seq_length=36,
            video_seq_length=9,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return tiled_piece(seed, SIZES[seed % 4], CROP, SIDE)

    def video(self, seed: int) -> Piece:
        data = {"pixel_values_videos": normal((1, FRAMES, 3, CROP, CROP), 1000 + seed)}
        return Piece([VIDEO] * (9 * FRAMES), data, grids(FRAMES, 3, 3))
