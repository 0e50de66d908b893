"""LFM2-VL: convolutions between layers with attention; pictures padded to equally many patches, 2 x 2 to a token."""

import torch
from transformers import Lfm2Config, Lfm2VlConfig, Lfm2VlForConditionalGeneration, Siglip2VisionConfig

from .base import BREAK, END, IMAGE, LAYERS, START, Piece, Tiny, grids, normal, text_options, tower_options

PATCH, MERGE = 4, 2
# (height, width) in patches; of the last picture those of two tiles side by side, and of the whole
GRIDS = [[(8, 8)], [(8, 12)], [(6, 10)], [(8, 6), (8, 6), (6, 8)]]
CONV, FULL = "conv", "full_attention"


class Lfm2VL(Tiny):
    name = "lfm2_vl"
    model_class = Lfm2VlForConditionalGeneration
    layer_types = (CONV, FULL, CONV, CONV, FULL, CONV)

    def kernels(self, backend: str):
        # SigLIP 2 hands its kernel a 4-D mask unless that is called flash attention
        return {"text_config": backend, "vision_config": "sdpa"} if backend == "fused" else backend

    def config(self):
        assert len(self.layer_types) == LAYERS
        text = text_options(layer_types=list(self.layer_types), block_multiple_of=16, conv_L_cache=3)
        del text["head_dim"]
        return Lfm2VlConfig(
            text_config=Lfm2Config(**text),
            vision_config=Siglip2VisionConfig(**tower_options(num_patches=64, patch_size=PATCH, vision_use_head=False)),
            image_token_id=IMAGE,
            downsample_factor=MERGE,
            projector_hidden_size=48,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        sides, ids, crops, first = GRIDS[seed % 4], [START], [], 0
        most = max(height * width for height, width in sides)
        pixels = normal((len(sides), most, 3 * PATCH * PATCH), seed)
        for number, (height, width) in enumerate(sides):
            pixels[number, height * width :] = 0
            down, across = height // MERGE, width // MERGE
            ids += [*[BREAK] * (len(sides) > 1), *[IMAGE] * (down * across)]  # which tile it is
            crops += grids(1, down, across, first)
            first += down * across
        return Piece([*ids, END], {"pixel_values": pixels, "spatial_shapes": torch.tensor(sides)}, crops)

    def collate(self, pieces, ids, mask) -> dict:
        own = [piece.data for piece in pieces["image"]]
        if not own:
            return {}
        most = max(data["pixel_values"].shape[1] for data in own)
        gaps = [most - data["pixel_values"].shape[1] for data in own]
        padded = [torch.nn.functional.pad(d["pixel_values"], (0, 0, 0, gap)) for d, gap in zip(own, gaps, strict=True)]
        shapes = torch.cat([data["spatial_shapes"] for data in own])
        seen = torch.arange(most) < shapes.prod(1, keepdim=True)
        return {"pixel_values": torch.cat(padded), "spatial_shapes": shapes, "pixel_attention_mask": seen.long()}
