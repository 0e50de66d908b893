"""Visual features that enter a decoder between its layers (DeepStack), beside those among its embeddings or for them.

Under a handle the decoder gets none of them. The seam before each of these layers adds what belongs to the tokens that
are left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from seeless.core.family import ModelView
from seeless.core.positions import TokenRow
from seeless.core.session import Session
from seeless.errors import UnsupportedModel

Features = Sequence[torch.Tensor] | Mapping[int, torch.Tensor]


@dataclass
class Injection:
    """The features of one prefill.

    Args:
        taken: features `[visual, dim]` of all visual tokens of the input, as the language model takes them: one tensor
            for each of its first layers, after which it is added; or, by number, for layers before which it is.
        marked: `[batch, seq]` or `[batch, seq, 1]` bool, which tokens of the input are visual.

    Raises:
        UnsupportedModel: some would be added after the last layer.
    """

    view: ModelView
    taken: Features
    marked: torch.Tensor
    known: tuple[TokenRow, torch.Tensor, torch.Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        depth, taken = self.view.depth, self.taken
        by_layer = dict(taken) if isinstance(taken, Mapping) else dict(enumerate(taken, 1))
        self.before = {layer: features for layer, features in by_layer.items() if 0 <= layer < depth}
        if depth in by_layer and not isinstance(taken, Mapping):
            raise UnsupportedModel(
                f"visual features are added after {len(taken)} layers of this {self.view.family.title} "
                f"model, which has {depth}; what is added after the last one cannot follow tokens that leave"
            )
        self.visual = self.marked.reshape(self.marked.shape[:2])
        self.number = (self.visual.flatten().cumsum(0) - 1).view(self.visual.shape)

    def add(self, session: Session, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """What enters a layer, `[batch, slots, dim]`, with its features, if it gets some."""
        if layer not in self.before:
            return hidden
        session.uninjected = hidden.detach()
        hidden = self._sum(session, hidden, self.before[layer].to(hidden.device, hidden.dtype))
        if layer == 0:
            session.entered.append(hidden)
        return hidden

    def shown(self, session: Session, hidden: torch.Tensor) -> torch.Tensor:
        """The embeddings `[batch, slots, dim]` of what is left as strategies at the entry see them: with what enters
        before the first layer, in the scale of embeddings."""
        if 0 not in self.before:
            return hidden
        entering = self.before[0].to(hidden.device, hidden.dtype) / self.view.embedding_scale
        return self._sum(session, hidden, entering)

    def arguments(self, mine: slice, visual: torch.Tensor) -> dict[str, Any]:
        """The language model's arguments for a prompt with some of the visual tokens, marked by `visual` `[1, seq]`."""
        names, taken = self.view.family.injected, self.taken
        assert names is not None
        if isinstance(taken, Mapping):
            own: Features = {layer: features[mine] for layer, features in taken.items()}
        else:
            own = [features[mine] for features in taken]
        return {names[0]: own, names[1]: visual.reshape(*visual.shape, *self.marked.shape[2:])}

    def _sum(self, session: Session, hidden: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        row = session.row
        for rows, columns, merge in session.merges:  # merged tokens get what was merged with the same weights
            at = self.number[rows, columns].to(hidden.device)
            features = features.index_put((at,), merge.values(features[at]))
        slots, numbers = self._places(session)
        if not row.whole:
            features = features.index_select(0, numbers.to(hidden.device))
        if row.token is not None:  # tokens that were added have no features
            added = row.tokens.flatten()[slots] >= session.prompt.length
            features = features.masked_fill(added.to(hidden.device)[:, None], 0)
        if session.chunk is not None:
            first, end = session.chunk
            line, column = slots // row.slots, slots % row.slots
            inside = (first <= column) & (column < end)
            slots, features = (line * (end - first) + column - first)[inside], features[inside.to(features.device)]
        flat, slots = hidden.flatten(0, 1), slots.to(hidden.device)
        return flat.index_copy(0, slots, flat.index_select(0, slots) + features).view_as(hidden)

    def _places(self, session: Session) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the visual tokens that are left, the slots among those of all rows, and their numbers in the input."""
        row = session.row
        if self.known is None or self.known[0] is not row:
            here = self.visual if row.whole else self.visual.gather(1, row.column)
            if row.valid is not None:
                here = here & row.valid
            left = sum(session.ledger.total)
            slots = here.flatten().byte().argsort(descending=True, stable=True)[:left]
            numbers = self.number if row.whole else self.number.gather(1, row.column)
            self.known = row, slots, numbers.flatten()[slots]
        return self.known[1], self.known[2]


def take_injected(session: Session, kwargs: dict) -> tuple[Injection | None, dict]:
    """The features that are to enter between layers, and the language model's arguments without them."""
    names = session.view.family.injected
    if names is None or kwargs.get(names[0]) is None:
        return None, kwargs
    marked = kwargs[names[1]].to(session.alive.device)
    return Injection(session.view, kwargs[names[0]], marked), {**kwargs, names[0]: None, names[1]: None}
