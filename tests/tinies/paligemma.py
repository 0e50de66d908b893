"""PaliGemma: the image and the prompt's prefix see each other in both directions, a suffix only backwards."""

from transformers import Gemma2Config, GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from .base import IMAGE, Piece, Tiny, grids, normal, siglip, text_options

SUFFIX = 2  # last tokens of every row


class PaliGemma(Tiny):
    name = "paligemma"
    model_class = PaliGemmaForConditionalGeneration
    new_token_types = {"token_type_ids": 1}

    def text(self):
        return GemmaConfig(**text_options())

    def config(self):
        return PaliGemmaConfig(
            text_config=self.text(),
            vision_config=siglip(32, 8),
            image_token_index=IMAGE,
            vocab_size=100,
            projection_dim=64,
            hidden_size=64,
            tie_word_embeddings=False,
        )

    def image(self, seed: int) -> Piece:
        return Piece([IMAGE] * 16, {"pixel_values": normal((1, 3, 32, 32), seed)}, grids(1, 4, 4))

    def collate(self, pieces, ids, mask) -> dict:
        after = mask.flip(1).cumsum(1).flip(1)  # real tokens from here on
        types = ((after <= SUFFIX) & mask.bool()).long()
        return {**super().collate(pieces, ids, mask), "token_type_ids": types}


class PaliGemma2(PaliGemma):
    """With a Gemma 2 decoder: sliding layers, soft-capped scores and logits."""

    name = "paligemma2"
    window = 128
    backends = ("eager",)  # "Gemma2Model does not support an attention implementation through ... sdpa yet"

    def kernels(self, backend: str):
        return {"text_config": "eager", "vision_config": "sdpa"} if backend == "sdpa" else backend

    def text(self):
        layers = ["sliding_attention", "full_attention"] * 3
        return Gemma2Config(**text_options(layer_types=layers, sliding_window=self.window, query_pre_attn_scalar=16))
