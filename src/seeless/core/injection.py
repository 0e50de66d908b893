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
        if row.whole and not session.merges and session.chunk is None:
            return inject(hidden, visual, features)
        features, device = features.to(hidden.device, hidden.dtype), row.column.device
        visual = visual.to(device)
        place = (visual.flatten().cumsum(0) - 1).view(visual.shape)
        for rows, columns, merge in session.merges:
            at = place[rows, columns].to(hidden.device)
            features = features.index_put((at,), merge.values(features[at]))
        here = visual.gather(1, row.column)
        if row.valid is not None:
            here = here & row.valid
        slots = here.flatten().byte().argsort(descending=True, stable=True)[: sum(session.ledger.total)]
        token = row.tokens.flatten()[slots]
        features = features[place.gather(1, row.column).flatten()[slots].to(hidden.device)]
        if row.token is not None:  # tokens that were added have no features
            features = features * (token < session.prompt.length).to(hidden.device)[:, None]
        if session.chunk is not None:
            first, end = session.chunk
            column = (slots % row.slots).to(features.device)
            here, features = here[:, first:end], features[(first <= column) & (column < end)]
        return inject(hidden, here.to(hidden.device), features)

    return run
