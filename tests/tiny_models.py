"""Tiny random models built from configs, ragged batches for them, and a flash-like attention backend."""

from dataclasses import dataclass

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

IMAGE, PAD = 99, 0
CROP, PATCH = 32, 8
LAYERS = 6


def text_config(kind: str, kv_heads: int, layers: int):
    cls = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}[kind]
    options = {"sliding_window": None} if kind == "mistral" else {}
    return cls(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=16,
        initializer_range=0.15,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=None,
        tie_word_embeddings=False,
        **options,
    )


def vision_config():
    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=CROP,
        patch_size=PATCH,
        initializer_range=0.3,
        projection_dim=32,
    )


@dataclass(frozen=True)
class Variant:
    family: str
    decoder: str
    kv_heads: int
    layers: int = LAYERS

    def __str__(self) -> str:
        return f"{self.family}-{self.decoder}-{'mha' if self.kv_heads == 4 else 'gqa'}"

    def build(self, backend: str = "eager", dtype: torch.dtype = torch.float32):
        torch.manual_seed(0)
        shared = {
            "text_config": text_config(self.decoder, self.kv_heads, self.layers),
            "vision_config": vision_config(),
            "image_token_index": IMAGE,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
        }
        if self.family == "llava":
            config = LlavaConfig(image_seq_length=16, **shared)
            model = LlavaForConditionalGeneration(config)
        else:
            config = LlavaNextConfig(image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]], **shared)
            model = LlavaNextForConditionalGeneration(config)
        with torch.no_grad():  # spread the patches out, so that no selection is a near-tie
            model.lm_head.weight[IMAGE] = 0  # the placeholder is never an answer
            for name, parameter in model.named_parameters():
                if "vision_tower" in name and parameter.ndim > 1:
                    parameter.normal_(0, 0.25)
                if "multi_modal_projector" in name and parameter.ndim > 1:
                    parameter.normal_(0, 0.2)
        model = model.to(dtype).eval()
        model.set_attn_implementation(backend)
        model.generation_config.pad_token_id = PAD
        return model


VARIANTS = (
    Variant("llava", "llama", 4),
    Variant("llava", "llama", 2),
    Variant("llava", "mistral", 2),
    Variant("llava", "qwen2", 2),
    Variant("llava_next", "llama", 4),
    Variant("llava_next", "mistral", 2),
)
SOME = (VARIANTS[1], VARIANTS[4])  # one of either family


def picture(variant: Variant, seed: int):
    """One image's pixels and, for LLaVA-NeXT, its size (height, width) and number of crops."""
    generator = torch.Generator().manual_seed(seed)
    if variant.family == "llava":
        return torch.randn(3, CROP, CROP, generator=generator), None
    size = [(51, 60), (30, 64), (64, 64), (64, 25)][seed % 4]
    crops = {(51, 60): 5, (30, 64): 3, (64, 64): 5, (64, 25): 3}[size]
    return torch.randn(crops, 3, CROP, CROP, generator=generator), size


def visual_tokens(model, variant: Variant, pixels, size) -> int:
    if variant.family == "llava":
        return (CROP // PATCH) ** 2
    with torch.no_grad():
        out = model.get_image_features(pixel_values=pixels[None], image_sizes=torch.tensor([size]))
    return len(out.pooler_output[0])


def make_inputs(model, variant: Variant, rows: list[list], padding: str = "left") -> dict:
    """Inputs of a batch; a row is a list of ints (that many random text tokens) and strings ("image:seed")."""
    texts, pictures = [], []
    for row in rows:
        generator = torch.Generator().manual_seed(100 + sum(p for p in row if isinstance(p, int)) + len(row))
        ids = []
        for part in row:
            if isinstance(part, int):
                ids += torch.randint(3, 99, (part,), generator=generator).tolist()
            else:
                pixels, size = picture(variant, int(part.split(":")[1]))
                ids += [IMAGE] * visual_tokens(model, variant, pixels, size)
                pictures.append((pixels, size))
        texts.append(ids)
    longest = max(map(len, texts))
    ids, mask = [], []
    for text in texts:
        gap = longest - len(text)
        before, after = (gap, 0) if padding == "left" else (0, gap)
        ids.append([PAD] * before + text + [PAD] * after)
        mask.append([0] * before + [1] * len(text) + [0] * after)
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if pictures:
        if variant.family == "llava":
            inputs["pixel_values"] = torch.stack([pixels for pixels, _ in pictures]).to(model.dtype)
        else:
            most = max(len(pixels) for pixels, _ in pictures)
            padded = [torch.cat([p, p.new_zeros(most - len(p), *p.shape[1:])]) for p, _ in pictures]
            inputs["pixel_values"] = torch.stack(padded).to(model.dtype)
            inputs["image_sizes"] = torch.tensor([size for _, size in pictures])
    return inputs


RAGGED = [
    [5, "image:0", 9],  # one image
    [3, "image:1", 4, "image:2", 6],  # two images with text between
    [14],  # no image
    [2, "image:3", 3],  # short
]


def flash_like(
    module,
    query,
    key,
    value,
    attention_mask,
    scaling=None,
    dropout=0.0,
    position_ids=None,
    sliding_window=None,
    s_aux=None,
    **kwargs,
):
    """Returns no weights, takes no 4-D mask, and refuses position ids that flash attention would read as packed.

    A window counts the columns that are there.
    """
    assert attention_mask is None or attention_mask.ndim == 2, "flash attention takes no 4-D mask"
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    if position_ids is not None and batch == 1 and position_ids.shape[-1] > 1:
        assert (position_ids.diff(dim=-1) == 1).all(), "gaps in position_ids would be taken for packed sequences"
    key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    if getattr(module, "is_causal", False):
        causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        if sliding_window is not None:
            causal = causal.triu(keys - queries - sliding_window + 1)
        scores = scores.masked_fill(~causal, -torch.inf)
    if attention_mask is not None:
        assert attention_mask.shape[1] == keys, (attention_mask.shape, keys)
        scores = scores.masked_fill(~attention_mask.bool()[:, None, None], -torch.inf)
    if s_aux is not None:
        scores = torch.cat([scores, s_aux.view(1, -1, 1, 1).expand(batch, -1, queries, 1)], -1)
    weights = scores.softmax(-1, dtype=torch.float32).nan_to_num(0).to(query.dtype)[..., :keys]
    return (weights @ value).transpose(1, 2).contiguous(), None


def register_flash_like() -> None:
    if "fused" not in ALL_ATTENTION_FUNCTIONS.valid_keys():
        ALL_ATTENTION_FUNCTIONS.register("fused", flash_like)
        ALL_MASK_ATTENTION_FUNCTIONS.register("fused", ALL_MASK_ATTENTION_FUNCTIONS["flash_attention_2"])


register_flash_like()
BACKENDS = ("eager", "sdpa", "fused")


def crop_grids(variant: Variant, size, start: int) -> list:
    """`(columns, height, width)` of every crop of an image whose first token is in column `start`, worked out by hand:
    LLaVA-NeXT packs the base crop, then the unpadded rows of all tiles, each row followed by a newline token."""
    side = CROP // PATCH
    base = (list(range(start, start + side * side)), side, side)
    if variant.family == "llava":
        return [base]
    across, down = {(51, 60): (2, 2), (30, 64): (2, 1), (64, 64): (2, 2), (64, 25): (1, 2)}[size]
    height, width = down * side, across * side
    if size[1] / size[0] > width / height:
        cut = (height - int(round(size[0] * width / size[1], 7))) // 2
        rows, columns = range(cut, height - cut), range(width)
    else:
        cut = (width - int(round(size[1] * height / size[0], 7))) // 2
        rows, columns = range(height), range(cut, width - cut)
    tiles, place = {}, start + side * side
    for r in rows:
        for c in columns:
            tiles.setdefault((r // side, c // side), {})[(r, c)] = place
            place += 1
        place += 1  # the newline
    crops = [base]
    for tile in sorted(tiles):
        cells = tiles[tile]
        crops.append(([cells[rc] for rc in sorted(cells)], len({r for r, _ in cells}), len({c for _, c in cells})))
    return crops


def row_grids(model, variant: Variant, rows: list[list], input_ids) -> list[list]:
    """`crop_grids` of all images of every row of a batch."""
    grids = []
    for row, ids in zip(rows, input_ids, strict=True):
        place = (ids == IMAGE).nonzero()[:, 0].tolist()
        own, used = [], 0
        for part in row:
            if isinstance(part, str):
                pixels, size = picture(variant, int(part.split(":")[1]))
                own += crop_grids(variant, size, place[used])
                used += visual_tokens(model, variant, pixels, size)
        grids.append(own)
    return grids
