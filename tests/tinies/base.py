"""The shared part of the tiny models: what a prompt is made of, how a batch is put together, how weights are spread."""

import inspect
from dataclasses import dataclass, field

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig

from seeless.families import family_of

IMAGE, VIDEO, PAD = 99, 98, 0
START, END = 96, 97  # vision start / end, image begin / end
BREAK = 95  # the end of a row of patches (Pixtral)
LAYERS = 6


@dataclass(frozen=True)
class Piece:
    """One image or video as it stands in a prompt."""

    ids: list[int]  # placeholders and the family's own markers before, between and after them
    data: dict[str, torch.Tensor]  # this piece's tensors, collated by `Tiny.collate`
    # Every picture the tower took in (image, tile, thumbnail, video frame) as (places, height, width): the places of
    # its tokens among this piece's visual tokens (0 = its first placeholder), in raster order, a height x width grid.
    # Newline and class tokens belong to no crop.
    crops: list[tuple[list[int], int, int]] = field(default_factory=list)

    @property
    def of_video(self) -> bool:
        return any("video" in name for name in self.data)

    @property
    def tokens(self) -> int:
        return sum(i in (IMAGE, VIDEO) for i in self.ids)


def text_options(kv_heads: int = 2, **options) -> dict:
    return {
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "head_dim": 16,
        "initializer_range": 0.15,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": None,
        "tie_word_embeddings": False,
        **options,
    }


def tower_options(**options) -> dict:
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        **options,
    }


def clip(image_size: int, patch_size: int):
    return CLIPVisionConfig(**tower_options(image_size=image_size, patch_size=patch_size, projection_dim=32))


def siglip(image_size: int, patch_size: int):
    return SiglipVisionConfig(**tower_options(image_size=image_size, patch_size=patch_size, vision_use_head=False))


def normal(shape, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def words(count: int, seed: int) -> list[int]:
    return torch.randint(3, 90, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def grids(count: int, height: int, width: int, start: int = 0, gap: int = 0) -> list[tuple[list[int], int, int]]:
    """`count` equal grids one after the other, each with `gap` tokens of no crop before it."""
    size = height * width
    firsts = [start + i * (size + gap) + gap for i in range(count)]
    return [(list(range(first, first + size)), height, width) for first in firsts]


@torch.no_grad()
def spread(model) -> None:
    """Weights far enough apart that attention is not flat and no selection is a near-tie."""
    for name, p in model.named_parameters():
        if "lm_head" in name:
            continue
        if "language_model" in name or ("text_model" in name and "vision" not in name):
            if name.endswith("bias"):
                p.normal_(0, 0.3)
            elif name.endswith(("q_norm.weight", "k_norm.weight")):  # scores of a normed head are otherwise flat
                p.add_(torch.randn_like(p) * 0.2 + 0.5)
            elif "expert" in name or ".gate." in name:
                p.normal_(0, 0.15)
        elif "lambda_" in name:  # layer scale
            p.normal_(1, 0.1)
        elif "position_embedding" in name or "pos_embed" in name or "cls_token" in name:
            p.normal_(0, 0.5)
        elif "image_newline" in name:
            p.normal_(0, 0.3)
        elif p.ndim > 1:
            p.normal_(0, 1.4 / p[0].numel() ** 0.5)
        elif name.endswith("bias"):
            p.normal_(0, 0.1)
    for token in (IMAGE, VIDEO, START, END):  # never an answer
        model.lm_head.weight[token] = 0


class Tiny:
    """A family: its tiny random model and the means to build prompts for it."""

    name: str
    kinds: tuple[str, ...] = ("image",)
    backends: tuple[str, ...] = ("eager", "sdpa")  # that the stock model has
    unread: bool = False  # its family names no layers of the tower
    never: tuple[int, ...] = ()  # markers of its own, which are never an answer
    sparse: bool = False  # built as another family: the short plan has it by turns, see tests/sparse.py
    model_class: type

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    def config(self):
        raise NotImplementedError

    def build(self, backend: str = "eager", dtype: torch.dtype = torch.float32):
        torch.manual_seed(0)
        model = self.model_class(self.config())
        spread(model)
        model.lm_head.weight.data[list(self.never)] = 0
        model = model.to(dtype).eval()
        model.set_attn_implementation(self.kernels(backend))
        model.generation_config.pad_token_id = PAD
        model.generation_config.eos_token_id = None
        return model

    @property
    def mrope(self) -> bool:
        """Whether positions have several axes."""
        return family_of(self.config().model_type).mrope

    def kernels(self, backend: str):
        """`backend` where the stock model has it."""
        return backend

    def piece(self, model, kind: str, seed: int) -> Piece:
        return getattr(self, kind)(seed)

    def collate(self, pieces: dict[str, list[Piece]], ids: torch.Tensor, mask: torch.Tensor) -> dict:
        """Concatenates every tensor of the pieces."""
        collected: dict[str, list[torch.Tensor]] = {}
        for kind in pieces:
            for piece in pieces[kind]:
                for key, value in piece.data.items():
                    collected.setdefault(key, []).append(value)
        return {key: torch.cat(values) for key, values in collected.items()}

    new_token_types: dict[str, int] = {}  # per-token inputs and their value for a generated token

    def extend(self, inputs: dict, new_tokens: int) -> dict:
        """The inputs with everything that has one entry per token grown for generated text tokens, save `input_ids`."""
        grown = dict(inputs)
        for key, value in {"attention_mask": 1, **self.new_token_types}.items():
            if key in inputs:
                grown[key] = torch.nn.functional.pad(inputs[key], (0, new_tokens), value=value)
        return grown


def repeats_patches(model) -> bool:
    """Whether beams of the stock model get patches that are not theirs: pictures of all sizes stand in one tensor, and
    this release of transformers repeats its rows, since it takes the model for one of text."""
    packed = "image_grid_thw" in inspect.signature(model.model.forward).parameters
    return packed and "image" not in model.input_modalities


def by_row(pieces: list[Piece], ids: torch.Tensor, token: int = IMAGE) -> list[list[Piece]]:
    """The pieces of a batch, row by row."""
    left = list(pieces)
    rows = []
    for count in (ids == token).sum(1).tolist():
        row = []
        while count:
            row.append(left.pop(0))
            count -= row[-1].tokens
        rows.append(row)
    assert not left
    return rows


def make_pieces(model, tiny: Tiny, row: list) -> list[Piece]:
    """The images and videos of a row, in its order."""
    parts = (part.split(":") for part in row if isinstance(part, str))
    return [tiny.piece(model, kind, int(seed)) for kind, seed in parts]


def make_inputs(model, tiny: Tiny, rows: list[list], padding: str = "left") -> dict:
    """Inputs of a batch; a row is a list of ints (that many random text tokens) and "image:seed" or "video:seed"."""
    texts, pieces = [], {kind: [] for kind in tiny.kinds}
    for row in rows:
        generator = torch.Generator().manual_seed(100 + sum(p for p in row if isinstance(p, int)) + len(row))
        own = iter(make_pieces(model, tiny, row))
        text = []
        for part in row:
            if isinstance(part, int):
                text += torch.randint(3, 90, (part,), generator=generator).tolist()
            else:
                piece = next(own)
                text += piece.ids
                pieces[part.split(":")[0]].append(piece)
        texts.append(text)
    longest = max(map(len, texts))
    ids, mask = [], []
    for text in texts:
        gap = longest - len(text)
        before, after = (gap, 0) if padding == "left" else (0, gap)
        ids.append([PAD] * before + text + [PAD] * after)
        mask.append([0] * before + [1] * len(text) + [0] * after)
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    extra = tiny.collate(pieces, ids, mask)
    extra = {
        key: value.to(model.dtype) if value.is_floating_point() and "pixel" in key else value
        for key, value in extra.items()
    }
    return {"input_ids": ids, "attention_mask": mask, **extra}


RAGGED = [
    [5, "image:0", 9],  # one image
    [3, "image:1", 4, "image:2", 6],  # two images with text between
    [14],  # no image
    [2, "image:3", 3],  # short
]
RAGGED_VIDEO = [
    [4, "video:0", 6],  # one video
    [3, "image:1", 4, "video:1", 5],  # an image and a video
    [3, "video:2", 2, "video:3", 4],  # two videos
    [12],  # text alone
    [2, "image:3", 4],  # an image alone
]
