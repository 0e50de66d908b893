"""A `Context` made of tensors, for tests of strategies without a model."""

from dataclasses import dataclass

import torch

from seeless.context import Context


@dataclass(eq=False)
class FakeSources:
    """Answers a `Context` with these tensors, whichever layer or queries are asked for; `text_...` those of the text.

    Args:
        of_visual, of_hidden, of_text, of_embeds, of_normed, of_text_normed, of_vision_features: `[units, tokens, dim]`.
        of_attention: `[units, heads, queries, visual]`.
        of_keys, of_text_keys, of_vision_keys: `[units, heads, tokens, dim]`.
        of_vision_attention: `[units, heads, visual]`.
        of_class_token: `[units, dim]` or None.
        of_reader_attention, of_text_similarity: `[units, visual]`; of_reader_keys: `[units, visual, width]`.
    """

    of_visual: torch.Tensor | None = None
    of_hidden: torch.Tensor | None = None
    of_text: torch.Tensor | None = None
    of_embeds: torch.Tensor | None = None
    of_normed: torch.Tensor | None = None
    of_text_normed: torch.Tensor | None = None
    of_attention: torch.Tensor | None = None
    of_keys: torch.Tensor | None = None
    of_text_keys: torch.Tensor | None = None
    of_vision_attention: torch.Tensor | None = None
    of_vision_features: torch.Tensor | None = None
    of_vision_keys: torch.Tensor | None = None
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

    def attention(self, queries, layer, average):
        return self.of_attention.mean(2, keepdim=True) if average else self.of_attention

    def keys(self, layer, tokens):
        return self.of_text_keys if tokens == "text" else self.of_keys

    def normed(self, tokens):
        return self.of_text_normed if tokens == "text" else self.of_normed

    def vision_attention(self):
        return self.of_vision_attention

    def vision_features(self):
        return self.of_vision_features

    def vision_keys(self):
        return self.of_vision_keys

    def class_token(self):
        return self.of_class_token

    def reader_attention(self):
        return self.of_reader_attention

    def reader_keys(self):
        return self.of_reader_keys

    def text_similarity(self, clip, question):
        return self.of_text_similarity


def fake_context(n_keep, units, visual, /, *, layer=1, stage_index=0, grid=None, **tensors):
    """The context of `units` complete units of `visual` tokens; `tensors` by their names without `of_`."""
    return Context(
        layer=layer,
        stage_index=stage_index,
        n_keep=n_keep,
        index=torch.arange(visual).expand(units, -1),
        n_original=visual,
        grid=grid,
        memory={},
        sources=FakeSources(**{f"of_{name}": tensor for name, tensor in tensors.items()}),
    )


def unit_of(tensors, unit):
    """The tensors of one unit alone."""
    return {name: tensor[unit : unit + 1] for name, tensor in tensors.items()}


def kept(decision):
    """Places that stay, one ascending list per unit."""
    return [row.nonzero()[:, 0].tolist() for row in decision.mask]
