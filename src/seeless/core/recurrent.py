"""What decoder layers that carry a state along, linear attention and convolutions, cannot do: skip padding.

Padding is zeroed before it enters such a layer, so that in front of a row it leaves the state at zero. Anywhere else
the state decays over it, or moves on. An untouched model lets that happen; a cut must not bring it about.
"""

from seeless.core.cache import CacheRecord
from seeless.core.family import ModelView
from seeless.core.positions import TokenRow
from seeless.core.prompt import Prompt
from seeless.errors import InputError


def check_row(view: ModelView, row: TokenRow, past: int, layer: int) -> None:
    """Refuse padding that recurrent layers from `layer` on would not skip: behind what is cached, or with biases.

    Args:
        row: the tokens of this forward that the layers see.
        past: tokens of the conversation before.
    """
    seeing = [index for index in view.recurrent if index >= layer]
    if row.valid is None or not seeing:
        return
    if getattr(view.language_model.config, "conv_bias", False):
        raise InputError(
            f"rows of {row.lengths} tokens are padded, and the convolutions of this model's decoder have a bias "
            "(conv_bias), which lets padding into the state; give rows that keep equally many tokens, or one row at a "
            "time"
        )
    if past:
        raise InputError(
            f"rows of {row.lengths} tokens come to {past} that are cached, so there is padding between the two, which "
            f"would pass through the state of decoder layer {seeing[0]} ({view.layer_kind(seeing[0])}). Go on with "
            "rows that keep equally many tokens (pictures of one size, or a count of tokens for a whole row), or with "
            "one conversation at a time"
        )


def check_chunks(view: ModelView, row: TokenRow, size: int) -> None:
    """Refuse chunks of one token where there is padding: one token alone is never taken for that.

    Args:
        size: tokens of a chunk.
    """
    if size == 1 and row.valid is not None and view.recurrent:
        raise InputError(
            f"prefill_chunk_size=1 lets padding into the state of this model's {view.layer_kind(view.recurrent[0])} "
            "layers, since one token alone is never taken for padding; use 2 or more, or one row at a time"
        )


def runs_over_padding(view: ModelView, prompt: Prompt, seen: dict[int, TokenRow]) -> bool:
    """Whether recurrent layers run over padding at the end of some row.

    Args:
        seen: from which layer on which tokens of the prompt are seen.
    """
    if prompt.valid is None or prompt.valid[:, -1].all():
        return False
    return any(seen[max(first for first in seen if first <= index)].whole for index in view.recurrent)


def check_continued(view: ModelView, record: CacheRecord, padded: bool) -> None:
    """Refuse to go on where padding has passed, or would now, through the state of recurrent layers.

    Args:
        padded: whether there is padding among the tokens behind the prompt.
    """
    if record.overrun or (padded and view.recurrent):
        kind = view.layer_kind(view.recurrent[0])
        raise InputError(
            f"there is padding behind tokens of a row, and it passes through the state of this model's {kind} layers, "
            "so what follows would be wrong; pad on the left (processor.tokenizer.padding_side = 'left'), and go on "
            "with rows of equal length"
        )
