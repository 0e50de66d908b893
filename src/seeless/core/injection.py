"""Visual features that a decoder adds to its hidden states after early layers (DeepStack) follow the cuts."""

from collections.abc import Callable
from functools import wraps

import torch

from seeless.core.session import Session


def following(session: Session, inject: Callable) -> Callable:
    """`inject(hidden, visual_mask, features)`, the language model's own, for hidden states that tokens have left.

    It is still called with the mask `[batch, seq]` and the features `[visual, dim]` of the whole input. Merged tokens
    get their features merged with the same weights.
    """

    @wraps(inject)
    def run(hidden: torch.Tensor, visual: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        row = session.row
        session.uninjected = hidden.detach()
        if row is session.whole and not session.merges:
            return inject(hidden, visual, features)
        features = features.to(hidden.device, hidden.dtype)
        visual, column = visual.to(hidden.device), row.column.to(hidden.device)
        place = (visual.flatten().cumsum(0) - 1).view(visual.shape)
        for rows, columns, merge in session.merges:
            at = place[rows.to(hidden.device), columns.to(hidden.device)]
            features = features.index_put((at,), merge.values(features[at]))
        token = row.tokens.to(hidden.device)
        own = token < session.length  # added tokens have no features
        here = visual.gather(1, column) & own
        if row.valid is not None:
            here = here & row.valid.to(hidden.device)
        return inject(hidden, here, features[place.gather(1, token.where(own, 0))[here]])

    return run
