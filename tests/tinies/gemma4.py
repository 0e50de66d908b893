"""Gemma 4: 3 x 3 patches pooled into a token, pictures padded to one length; other heads in global layers.

The frames of a video each have text before them.
"""

import inspect

import torch
from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4Model, Gemma4TextConfig
from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

from .base import END, IMAGE, START, VIDEO, Piece, Tiny, normal, text_options, words

GRIDS = [(12, 12), (12, 15), (9, 18), (15, 12)]  # patches
ROOM = 189  # of a picture in the tower
TAKES_VIDEOS = "num_frames_per_video" in inspect.signature(Gemma4Model.get_video_features).parameters


def placed(height: int, width: int) -> torch.Tensor:
    """Column and row of every patch, and -1 behind them."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    own = torch.stack([columns, rows], -1).flatten(0, 1)
    return torch.nn.functional.pad(own, (0, 0, 0, ROOM - len(own)), value=-1)


def patches(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.pad(normal((height * width, 48), seed).sigmoid(), (0, 0, 0, ROOM - height * width))


class Gemma4(Tiny):
    name = "gemma4"
    kinds = ("image", "video") if TAKES_VIDEOS else ("image",)
    model_class = Gemma4ForConditionalGeneration
    new_token_types = {"mm_token_type_ids": 0}
    window = 256
    options: dict = {
        "use_bidirectional_attention": "vision",
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
    }

    layers = (["sliding_attention"] * 2 + ["full_attention"]) * 2

    def config(self):
        text = text_options(
            layer_types=self.layers,
            sliding_window=self.window,
            global_head_dim=32,
            num_global_key_value_heads=1,
            vocab_size_per_layer_input=100,
            final_logit_softcapping=30.0,
            **self.options,
        )
        vision = Gemma4VisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=8,
            patch_size=4,
            position_embedding_size=20,
        )
        return Gemma4Config(
            text_config=Gemma4TextConfig(**text),
            vision_config=vision,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=94,
            boi_token_id=START,
            eoi_token_id=END,
            initializer_range=0.15,
            tie_word_embeddings=False,
        )

    def build(self, backend: str = "eager", dtype: torch.dtype = torch.float32):
        model = super().build(backend, dtype)
        with (
            torch.no_grad()
        ):  # scores are not scaled down, so norms of queries and keys that large would make them steep
            for name, parameter in model.named_parameters():
                if name.endswith(("q_norm.weight", "k_norm.weight")):
                    parameter.mul_(0.5)
        return model

    def image(self, seed: int) -> Piece:
        height, width = GRIDS[seed % 4]
        count = height * width // 9
        data = {"pixel_values": patches(height, width, seed)[None], "image_position_ids": placed(height, width)[None]}
        crop = (list(range(count)), height // 3, width // 3)
        return Piece([START, *[IMAGE] * count, END], data, [crop])

    def video(self, seed: int) -> Piece:
        frames, (height, width) = 2 + seed % 2, GRIDS[(seed + 1) % 4]
        count = height * width // 9
        ids, crops = [], []
        for number in range(frames):
            ids += [*words(2, 10 * seed + number), START, *[VIDEO] * count, END]
            crops.append((list(range(number * count, (number + 1) * count)), height // 3, width // 3))
        data = {
            "pixel_values_videos": torch.stack([patches(height, width, 50 * seed + i) for i in range(frames)]),
            "video_position_ids": placed(height, width)[None].repeat(frames, 1, 1),
            "num_frames_per_video": torch.tensor([frames]),
        }
        return Piece(ids, data, crops)

    def collate(self, pieces, ids, mask) -> dict:
        types = (ids == IMAGE).long() + 2 * (ids == VIDEO).long()
        return {**super().collate(pieces, ids, mask), "mm_token_type_ids": types}


class Gemma4Small(Gemma4):
    """As the small ones are: plainly causal, with embeddings for every layer; late layers borrow keys and values."""

    name = "gemma4-small"
    kinds = ("image",)
    layers = ["sliding_attention"] * 2 + ["full_attention", "sliding_attention"] + ["full_attention"] * 2

    def kernels(self, backend: str):
        # The stock model slices its masks for late layers unless its kernel is called flash attention, which it refuses
        return "sdpa" if backend == "fused" else backend

    options: dict = {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 1, "use_double_wide_mlp": True}
