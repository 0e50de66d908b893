"""LLaVA: a CLIP tower with one grid per image, or a Pixtral tower with images of many sizes."""

import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen2Config,
)

from .base import BREAK, END, IMAGE, Piece, Tiny, clip, grids, normal, text_options, tower_options


def decoder(kind: str, kv_heads: int):
    cls = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}[kind]
    return cls(**text_options(kv_heads, **({"sliding_window": None} if kind == "mistral" else {})))


class Llava(Tiny):
    model_class = LlavaForConditionalGeneration

    def __init__(self, kind: str, kv_heads: int):
        self.kind, self.kv_heads = kind, kv_heads
        self.name = f"llava-{kind}-{'mha' if kv_heads == 4 else 'gqa'}"

    def config(self):
        return LlavaConfig(
            text_config=decoder(self.kind, self.kv_heads),
            vision_config=clip(32, 8),
            image_token_index=IMAGE,
            image_seq_length=16,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 3, 32, 32), seed)}, grids(1, 4, 4))


SIZES = [(32, 32), (32, 48), (24, 40), (48, 32)]  # pixels


def pixtral_piece(seed: int, patch: int) -> Piece:
    """Rows of placeholders with a break token after each, the last of them an end token."""
    size = SIZES[seed % 4]
    height, width = size[0] // patch, size[1] // patch
    ids = ([IMAGE] * width + [BREAK]) * height
    data = {"pixel_values": normal((1, 3, *size), seed), "image_sizes": torch.tensor([size])}
    return Piece([*ids[:-1], END], data, grids(1, height, width))


def pad_images(pieces: list[Piece]) -> dict:
    if not pieces:
        return {}
    sizes = torch.cat([piece.data["image_sizes"] for piece in pieces])
    height, width = sizes.amax(0).tolist()
    images = [piece.data["pixel_values"] for piece in pieces]
    padded = [torch.nn.functional.pad(i, (0, width - i.shape[-1], 0, height - i.shape[-2])) for i in images]
    return {"pixel_values": torch.cat(padded), "image_sizes": sizes}


def pixtral():
    return PixtralVisionConfig(**tower_options(image_size=48, patch_size=4))


class LlavaPixtral(Tiny):
    """One token per patch of 8 x 8 pixels."""

    name = "llava-pixtral"
    model_class = LlavaForConditionalGeneration

    def kernels(self, backend: str):
        # Pixtral hands its kernel a 4-D mask unless that is called flash attention
        return {"text_config": backend, "vision_config": "sdpa"} if backend == "fused" else backend

    def config(self):
        return LlavaConfig(
            text_config=decoder("mistral", 2),
            vision_config=PixtralVisionConfig(**tower_options(image_size=48, patch_size=8)),
            image_token_index=IMAGE,
            image_seq_length=1,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return pixtral_piece(seed, 8)

    def collate(self, pieces, ids, mask) -> dict:
        return pad_images(pieces["image"])
