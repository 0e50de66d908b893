"""A `Context` over tensors made up by a test."""

from dataclasses import dataclass

import torch

from seeless import Context


@dataclass
class FakeSources:
    """Answers with what it was given; units first everywhere.

    Args:
        maps: `[units, heads, text, visual]` attention of the text rows.
        bias: `[units, 1, text, visual]` rotary bias of the same rows.
    """

    embeds_: torch.Tensor
    text_: torch.Tensor | None = None
    states: torch.Tensor | None = None
    maps: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def visual(self):
        return self.embeds_ if self.states is None else self.states

    def embeds(self):
        return self.embeds_

    def text_embeds(self):
        return self.text_

    def attention(self, queries, layer, average):
        rows = self.maps if queries == "text" else self.maps[:, :, queries]
        return rows.mean(2, keepdim=True) if average else rows

    def rope_bias(self, queries, layer):
        return self.bias[:, :, queries]

    def only(self, unit):
        """The same for one unit."""
        own = {k: None if v is None else v[unit : unit + 1] for k, v in vars(self).items()}
        return FakeSources(**own)


def context(sources, n_keep, grid=None, layer=3, stage_index=0, memory=None):
    units, visual = sources.embeds_.shape[:2]
    return Context(
        layer=layer,
        stage_index=stage_index,
        n_keep=n_keep,
        index=torch.arange(visual).expand(units, -1),
        n_original=visual,
        grid=grid,
        memory={} if memory is None else memory,
        sources=sources,
    )


def kept(decision):
    """Places that stay, per unit."""
    return [row.nonzero()[:, 0].tolist() for row in decision.mask]


def top(scores, count):
    """Places of the `count` highest, ties to the lower place, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def cosine(a, b):
    """Of two lists; 0 where one is nothing but zeros."""
    norms = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def mean(vectors):
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]
