"""Video-LLaVA: a tower for images, whose class token is dropped, and one for video frames, which keep theirs."""

from inspect import signature

from transformers import VideoLlavaConfig, VideoLlavaForConditionalGeneration

from .base import IMAGE, VIDEO, Piece, Tiny, clip, grids, normal
from .llava import decoder

FRAMES = 4
NAMES = signature(VideoLlavaForConditionalGeneration.forward).parameters
PIXELS = "pixel_values" if "pixel_values" in NAMES else "pixel_values_images"  # of transformers before 5.21


class VideoLlava(Tiny):
    name = "video_llava"
    kinds = ("image", "video")
    model_class = VideoLlavaForConditionalGeneration

    def config(self):
        return VideoLlavaConfig(
            text_config=decoder("llama", 4),
            vision_config=clip(32, 8),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_seq_length=16,
            video_seq_length=17 * FRAMES,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {PIXELS: normal((1, 3, 32, 32), seed)}, grids(1, 4, 4))

    def video(self, seed: int) -> Piece:
        data = {"pixel_values_videos": normal((1, FRAMES, 3, 32, 32), 1000 + seed)}
        return Piece([VIDEO] * (17 * FRAMES), data, grids(FRAMES, 4, 4, gap=1))
