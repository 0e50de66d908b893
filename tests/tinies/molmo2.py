"""Molmo 2: two grids of tokens per picture, as a whole and in crops; an index says which patches make each token."""

import torch
from transformers import Molmo2Config, Molmo2ForConditionalGeneration

from .base import BREAK, END, IMAGE, START, Piece, Tiny, normal, text_options

SIDE, POOL = 8, 2  # patches of a crop, and those a token is pooled from
GRIDS = [((4, 4), (4, 6)), ((4, 4), (0, 0)), ((4, 4), (6, 4)), ((4, 4), (2, 4))]


def windows(height: int, width: int, first: int) -> torch.Tensor:
    """Four patches for each of height x width tokens, numbered from `first` in the order of the canvas."""
    numbers = first + torch.arange(POOL * height * POOL * width).view(height, POOL, width, POOL)
    return numbers.transpose(1, 2).reshape(height * width, POOL * POOL)


class Molmo2(Tiny):
    name = "molmo2"
    model_class = Molmo2ForConditionalGeneration
    new_token_types = {"mm_token_type_ids": 0}
    sparse = unread = True

    def config(self):
        tower = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
        tower["initializer_range"] = 0.1
        return Molmo2Config(
            text_config={**text_options(initializer_range=0.1), "additional_vocab_size": 0},
            vision_config={
                **tower,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "image_size": [32, 32],
                "patch_size": 4,
                "num_position_embeddings": SIDE * SIDE,
            },
            adapter_config={**tower, "vision_feature_layer": [2, 1], "intermediate_size": 48, "text_hidden_size": 64},
            initializer_range=0.1,
            image_start_token_id=START,
            low_res_image_start_token_id=START,
            image_end_token_id=END,
            image_patch_id=IMAGE,
            tie_word_embeddings=False,
        )

    def build(self, backend: str = "eager", dtype: torch.dtype = torch.float32):
        model = super().build(backend, dtype)
        with torch.no_grad():  # what is added to embeddings shall not drown them
            model.model.multi_modal_projector.image_projector.down_proj.weight.mul_(0.3)
        return model

    def image(self, seed: int) -> Piece:
        (low, wide), (high, across) = GRIDS[seed % 4]
        crops = 1 + -(-POOL * high * POOL * across // SIDE**2)
        index = torch.cat([windows(low, wide, 0), windows(high, across, SIDE * SIDE)])
        ids = [START, *[IMAGE] * (low * wide), END]
        if high:
            ids += [START, *([*[IMAGE] * across, BREAK] * high), END]
        data = {
            "pixel_values": normal((crops, SIDE * SIDE, 48), seed),
            "image_token_pooling": index,
            "image_grids": torch.tensor([(low, wide, high, across)]),
            "image_num_crops": torch.tensor([crops]),
        }
        first = low * wide
        places = [(list(range(first)), low, wide), (list(range(first, first + high * across)), high, across)]
        return Piece(ids, data, places[: 2 if high else 1])

    def collate(self, pieces, ids, mask) -> dict:
        inputs, first, shifted = super().collate(pieces, ids, mask), 0, []
        for piece in pieces["image"]:  # indices run through the patches of all crops of the batch
            shifted.append(piece.data["image_token_pooling"] + first)
            first += SIDE * SIDE * len(piece.data["pixel_values"])
        if shifted:
            inputs["image_token_pooling"] = torch.cat(shifted)
        seen = torch.isin(ids, torch.tensor([IMAGE, START, END, BREAK])).long()
        return {**inputs, "mm_token_type_ids": seen}
