"""A `Context` made of tensors, for tests of strategies without a model; and sums and rankings written with lists."""

from dataclasses import dataclass

import torch

from seeless.context import Context
from seeless.patches import PatchContext
from seeless.tower import Tower

X8 = torch.tensor(  # vectors, importances and relevances on which formulas have been worked out
    [[2, 0, 0], [2, 1, 0], [0, 2, 0], [0, 2, 1], [0, 0, 2], [1, 0, 2], [1, 1, 1], [-1, 2, 0]], dtype=torch.float64
)[None]
A8 = torch.tensor([[0.30, 0.20, 0.05, 0.10, 0.15, 0.02, 0.08, 0.10]], dtype=torch.float64)
R8 = torch.tensor([[0.9, 0.8, 0.1, 0.2, 0.7, 0.6, 0.5, 0.0]], dtype=torch.float64)


def random_tensors(units, visual, seed, dim=5, heads=2):
    """Embeddings, features and attention of the tower, float64; a few equal tokens among them."""
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(units, visual, dim, generator=generator, dtype=torch.float64)
    features = torch.randn(units, visual, dim, generator=generator, dtype=torch.float64)
    attention = torch.randn(units, heads, visual, generator=generator, dtype=torch.float64).softmax(-1)
    if visual > 4:
        embeds[:, 3], features[:, 3], attention[:, :, 3] = embeds[:, 1], features[:, 1], attention[:, :, 1]
    return {"embeds": embeds, "vision_features": features, "vision_attention": attention}


@dataclass(eq=False)
class FakeSources:
    """Answers a `Context` with these tensors, whichever layer is asked for; `text_...` those of the text.

    Args:
        of_visual, of_hidden, of_text, of_embeds, of_text_embeds, of_normed, of_text_normed, of_vision_features:
            `[units, tokens, dim]`.
        of_attention, of_rope_bias: `[units, heads (or 1), queries, visual]`; a tensor of queries picks some of them.
        of_second: `[units, layers, heads, visual]`.
        of_keys, of_text_keys, of_vision_keys: `[units, heads, tokens, dim]`.
        of_vision_attention: `[units, heads, visual]`, or such by (queries, layer) for a method that names layers.
        of_vision_hidden: `[units, visual, dim]` by layer.
        of_pooling_attention: `[units, heads, visual]`; of_pooled: `[units, visual, dim]`.
        of_tower: the `Tower`.
        of_token_embeds, of_clip_patches, of_clip_text, of_clip_tokens: `[units, tokens, dim]`; of_question: a text.
        of_patch, of_frame, of_tower_groups: `[units, visual]`.
        of_tower_stays: `[units, visual]` bool.
        of_class_token: `[units, dim]` or None.
        of_reader_attention, of_text_similarity: `[units, visual]`; of_reader_keys: `[units, visual, width]`.
    """

    of_patch: torch.Tensor
    of_frame: torch.Tensor
    of_visual: torch.Tensor | None = None
    of_hidden: torch.Tensor | None = None
    of_text: torch.Tensor | None = None
    of_embeds: torch.Tensor | None = None
    of_text_embeds: torch.Tensor | None = None
    of_normed: torch.Tensor | None = None
    of_text_normed: torch.Tensor | None = None
    of_attention: torch.Tensor | None = None
    of_rope_bias: torch.Tensor | None = None
    of_second: torch.Tensor | None = None
    of_keys: torch.Tensor | None = None
    of_text_keys: torch.Tensor | None = None
    of_vision_attention: torch.Tensor | dict | None = None
    of_vision_hidden: dict | None = None
    of_pooling_attention: torch.Tensor | None = None
    of_pooled: torch.Tensor | None = None
    of_tower: Tower | None = None
    of_token_embeds: torch.Tensor | None = None
    of_clip_patches: torch.Tensor | None = None
    of_clip_text: torch.Tensor | None = None
    of_clip_tokens: torch.Tensor | None = None
    of_question: str = ""
    of_entering: dict | None = None  # `[units, visual, dim]` by layer
    of_vision_features: torch.Tensor | None = None
    of_vision_keys: torch.Tensor | None = None
    of_tower_groups: torch.Tensor | None = None
    of_tower_stays: torch.Tensor | None = None
    of_class_token: torch.Tensor | None = None
    of_reader_attention: torch.Tensor | None = None
    of_reader_keys: torch.Tensor | None = None
    of_text_similarity: torch.Tensor | None = None

    def visual(self):
        return self.of_visual

    def hidden(self):
        return self.of_hidden

    def text(self):
        return self.of_text

    def embeds(self):
        return self.of_embeds

    def text_embeds(self):
        return self.of_text_embeds

    def attention(self, queries, layer, average, onto, causal):
        rows = self.of_attention[:, :, queries] if isinstance(queries, torch.Tensor) else self.of_attention
        return rows.mean(2, keepdim=True) if average else rows

    def rope_bias(self, queries, layer):
        return self.of_rope_bias[:, :, queries] if isinstance(queries, torch.Tensor) else self.of_rope_bias

    def second(self, before, between, after, layers):
        return self.of_second

    def keys(self, layer, tokens):
        return self.of_text_keys if tokens == "text" else self.of_keys

    def normed(self, tokens):
        return self.of_text_normed if tokens == "text" else self.of_normed

    def tower(self):
        return self.of_tower

    def vision_attention(self, layer, queries):
        found = self.of_vision_attention
        return found[queries, layer] if isinstance(found, dict) else found

    def vision_hidden(self, layer):
        return self.of_vision_hidden[layer]

    def pooling_attention(self, siglip):
        return self.of_pooling_attention

    def pooled(self, siglip):
        return self.of_pooled

    def vision_features(self):
        return self.of_vision_features

    def vision_keys(self):
        return self.of_vision_keys

    def patch(self):
        return self.of_patch

    def class_token(self):
        return self.of_class_token

    def reader_attention(self):
        return self.of_reader_attention

    def reader_keys(self):
        return self.of_reader_keys

    def text_similarity(self, clip, question):
        return self.of_text_similarity

    def entering(self, layer):
        return self.of_entering[layer]

    def question(self, text):
        return self.of_question if text is None else text

    def token_embeds(self, pieces):
        self.pieces = list(pieces)
        return self.of_token_embeds

    def in_clip_space(self, clip):
        return clip is not None

    def clip_patches(self, clip):
        return self.of_clip_patches

    def clip_text(self, clip, text):
        return self.of_clip_text

    def clip_tokens(self, clip, text, padding):
        return self.of_clip_tokens

    def tower_groups(self):
        return self.of_tower_groups

    def tower_stays(self):
        return self.of_tower_stays

    def frame(self):
        return self.of_frame


def fake_context(
    n_keep, units, visual, /, *, layer=1, stage_index=0, grid=None, memory=None, axes=1, prepared=None, **tensors
):
    """The context of `units` complete units of `visual` tokens; `tensors` by their names without `of_`.

    Without `patch` and `frame` of its own every unit is what `grid` says; a still without a grid.
    """
    frames, height, width = grid or (1, 1, visual)
    number = torch.arange(visual).expand(units, -1)
    tensors.setdefault("patch", number % (height * width))
    tensors.setdefault("frame", number // (height * width) if frames > 1 else torch.full_like(number, -1))
    return Context(
        layer=layer,
        stage_index=stage_index,
        n_keep=n_keep,
        index=number,
        n_original=visual,
        grid=grid,
        memory={} if memory is None else memory,
        axes=axes,
        prepared=prepared,
        sources=FakeSources(**{f"of_{name}": tensor for name, tensor in tensors.items()}),
    )


@dataclass(eq=False)
class FakePatches:
    """Answers a `PatchContext` with these tensors.

    Args:
        of_pixels: `[pictures, tokens, patches, channels, frames, height, width]`; of_hidden: `[pictures, tokens, dim]`.
        of_class_attention: `[pictures, heads, tokens]`; of_values: `[pictures, heads, tokens, dim]`; of_class_value:
            `[pictures, heads, dim]`.
    """

    of_pixels: torch.Tensor | None = None
    of_hidden: torch.Tensor | None = None
    of_class_attention: torch.Tensor | None = None
    of_values: torch.Tensor | None = None
    of_class_value: torch.Tensor | None = None

    def pixels(self):
        return self.of_pixels

    def hidden(self):
        return self.of_hidden

    def class_attention(self):
        return self.of_class_attention

    def values(self):
        return self.of_values

    def class_value(self):
        return self.of_class_value


def fake_patches(n_keep, pictures, grid, /, *, layer=0, made=22, scores=None, index=None, video=False, **tensors):
    """The `PatchContext` of pictures, complete unless `index` says which tokens are left; `tensors` without `of_`."""
    every = torch.arange(grid[0] * grid[1]).expand(pictures, -1)
    return PatchContext(
        layer=layer,
        made=made,
        n_keep=n_keep,
        index=every if index is None else index,
        grid=grid,
        video=video,
        scores=scores,
        sources=FakePatches(**{f"of_{name}": tensor for name, tensor in tensors.items()}),
    )


def unit_of(tensors, unit):
    """The tensors of one unit alone."""
    return {name: tensor[unit : unit + 1] for name, tensor in tensors.items()}


def kept(decision):
    """Places that stay, one ascending list per unit."""
    return [row.nonzero()[:, 0].tolist() for row in decision.mask]


def top(scores, count):
    """Places of the `count` highest, ties to the lower place, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def cosine(a, b):
    """Of two lists; 0 where one is nothing but zeros."""
    norms = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def mean(vectors):
    """Of some lists of equal length."""
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]
