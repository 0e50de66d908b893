"""Which tokens of a conversation are no padding, as its masks have said: a later mask can hide none of them."""

import numpy as np
import torch

from seeless.errors import InputError


def joined(before: torch.Tensor | None, tokens: int, now: torch.Tensor) -> torch.Tensor:
    """Those of a conversation, `[batch, tokens + seq]` bool.

    Args:
        before: `[batch, tokens or fewer]` bool, those of what came before, whose rest is real; None = all.
        now: `[batch, seq]` bool.
    """
    before = now[:, :0] if before is None else before.to(now.device)
    return torch.cat([torch.nn.functional.pad(before, (0, tokens - before.shape[1]), value=True), now], 1)


def count_hidden(mask: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """How many of the real tokens of every row a mask hides, `[batch]`.

    Args:
        mask: `[batch, tokens]`, of the conversation so far, from a later turn.
        real: `[batch, tokens]` bool; None = all.
    """
    hidden = mask == 0
    return (hidden if real is None else hidden & real.to(mask.device)).sum(1)


def check_shown(hidden: np.ndarray) -> None:
    """Refuse a mask that hides what was seen before.

    Args:
        hidden: as `count_hidden` gives it.

    Raises:
        InputError: it does, in some row.
    """
    if hidden.any():
        row = int(hidden.argmax())
        raise InputError(
            f"attention_mask hides {hidden[row]} tokens of row {row} that were part of the conversation so far, and a "
            "reduced cache shows all that it holds; pass the mask of the turn before with new columns behind it, or "
            "prefill anew"
        )
