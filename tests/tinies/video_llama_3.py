"""VideoLLaMA 3: pictures of any size, here a patch to a token."""

import torch
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

from .base import END, IMAGE, START, VIDEO, Piece, Tiny, grids, normal, tower_options
from .llava import decoder
from .qwen2_vl import PATCH

SIDES = [(4, 4), (4, 6), (3, 5), (6, 4)]


class VideoLlama3(Tiny):
    name = "video_llama_3"
    model_class = VideoLlama3ForConditionalGeneration
    kinds = ("image", "video")
    sparse = True

    def config(self):
        return VideoLlama3Config(
            text_config=decoder("qwen2", 2),
            vision_config=tower_options(patch_size=PATCH),
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        height, width = SIDES[seed % 4]
        data = {
            "pixel_values": normal((height * width, 3 * PATCH * PATCH), seed),
            "image_grid_thw": torch.tensor([(1, height, width)]),
            "image_merge_sizes": torch.tensor([1]),
        }
        return Piece([START] + [IMAGE] * (height * width) + [END], data, grids(1, height, width))

    def video(self, seed: int) -> Piece:
        frames, (height, width) = 2 + seed % 2, SIDES[(seed + 1) % 4]
        data = {
            "pixel_values_videos": normal((frames * height * width, 3 * PATCH * PATCH), 1000 + seed),
            "video_grid_thw": torch.tensor([(frames, height, width)]),
            "video_merge_sizes": torch.tensor([1]),
        }
        return Piece([START] + [VIDEO] * (frames * height * width) + [END], data, grids(frames, height, width))
