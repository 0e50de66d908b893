"""A conversation as tensors: what each turn gives to a model, and the whole of it, as if it came at once."""

from dataclasses import dataclass

import torch
from matrix import PLACEHOLDERS

from layer_loop import decoder_of
from tinies import Tiny, make_inputs


@dataclass(frozen=True)
class Talk:
    """A conversation.

    Args:
        turns: inputs of every turn; `attention_mask` is that turn's own.
        whole: inputs of all turns, one behind the other.
        ends: columns up to the end of every turn.
    """

    turns: list[dict]
    whole: dict
    ends: list[int]

    @property
    def mask(self) -> torch.Tensor:
        return self.whole["attention_mask"]

    def start(self, number: int) -> int:
        return self.ends[number - 1] if number else 0


def padded(inputs: dict, columns: int, side: str) -> dict:
    """Inputs with so many more columns of padding."""
    before, shape = (columns, 0) if side == "left" else (0, columns), inputs["input_ids"].shape
    return {
        name: torch.nn.functional.pad(value, before) if value.shape == shape else value
        for name, value in inputs.items()
    }


def types_behind(tiny: Tiny, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a family is told of the kinds of the tokens of a turn behind pictures, if it has none itself: text there is
    like an answer."""
    types = {} if visual_in(ids).any() else tiny.new_token_types
    return {name: torch.full_like(ids, value) for name, value in types.items()}


def talk_of(model, tiny: Tiny, turns: list[list], padding: list[str], columns: int) -> Talk:
    """The conversation of a case; `columns` of padding more stand at its first turn."""
    made = [make_inputs(model, tiny, rows, side) for rows, side in zip(turns, padding, strict=True)]
    made[0] = padded(made[0], columns, padding[0])
    seen = False
    for inputs in made:
        if seen:
            inputs |= types_behind(tiny, inputs["input_ids"])
        seen |= bool(visual_in(inputs["input_ids"]).any())
    together = [[part for rows in turns for part in rows[row]] for row in range(len(turns[0]))]
    whole = dict(make_inputs(model, tiny, together))
    for name in ("input_ids", "attention_mask", *tiny.new_token_types):
        if name in whole:
            whole[name] = torch.cat([inputs[name] for inputs in made], 1)
    ends, at = [], 0
    for inputs in made:
        at += inputs["input_ids"].shape[1]
        ends.append(at)
    return Talk(made, whole, ends)


def positions_of(kind: str, talk: Talk, untouched) -> torch.Tensor | None:
    """Position ids of the whole conversation that are given turn by turn.

    Args:
        kind: "none" are given; "real": a row counts its real tokens; "shifted": from elsewhere on; "gaps": with gaps
            between them; "whole": what the untouched model makes of all turns together.
    """
    if kind == "none":
        return None
    if kind == "whole":
        return seen_positions(talk, untouched)
    real = (talk.mask.cumsum(1) - 1).clamp(min=0)
    if kind == "shifted":
        return real + 7
    return real + (real // 3 if kind == "gaps" else 0)


def seen_positions(talk: Talk, untouched) -> torch.Tensor:
    """Positions that the decoder of an untouched model gets for the whole conversation."""
    seen = []
    hook = decoder_of(untouched).register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    try:
        untouched(**talk.whole, use_cache=False)
    finally:
        hook.remove()
    return seen[0]


def visual_in(ids: torch.Tensor) -> torch.Tensor:
    """Which columns of `ids` `[batch, seq]` are visual tokens."""
    return torch.isin(ids, torch.tensor(PLACEHOLDERS))
