"""The mask oracle: a stock model that keeps every token, told layer by layer which keys it must not see.

Dropping tokens before a layer must equal forbidding their keys from that layer on. Nothing of what drops tokens is used
here, but the names of a family.
"""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import seeless as sl


def follow(module: Any, path: str) -> Any:
    """The part of a module at a path of names; None if there is none."""
    for name in path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return None
    return module


def decoder_of(model: nn.Module, family: sl.Family) -> Any:
    """The decoder of a model, by the names of its family."""
    base = model if follow(model, family.language_model) is not None else follow(model, family.base)
    decoder = follow(base, family.language_model)
    return decoder if hasattr(decoder, family.layers) else decoder.model


@dataclass(frozen=True)
class Cuts:
    """What is forbidden from each layer on, and where the tokens stand.

    Args:
        hidden: `[layers, batch, length, length]` bool, queries by keys, True = out of sight.
        positions: `[layers, batch, length]`; None = the model's own.
    """

    hidden: torch.Tensor
    positions: torch.Tensor | None


def cuts_of(
    report: sl.Report, visual: torch.Tensor, depth: int, positions: torch.Tensor | None, renumber: bool, length: int
) -> Cuts:
    """What a report says was dropped, for a prompt of a batch and the answers behind it.

    Args:
        visual: `[batch, seq]` bool, placeholders of the prompt.
        depth: layers of the decoder.
        positions: `[batch, length]` of the whole prompt and answer; None where the model works them out.
        renumber: whether tokens close the gaps that others leave.
        length: tokens of prompt and answer.
    """
    hidden = torch.zeros(depth, len(visual), length, length, dtype=torch.bool)
    lowered = torch.zeros(depth, len(visual), length, dtype=torch.long)
    for row, own in enumerate(visual):
        columns, before = own.nonzero()[:, 0], torch.zeros(length, dtype=torch.bool)
        for stage in report.stages:
            gone = torch.zeros(length, dtype=torch.bool)
            gone[columns] = True
            gone[columns[stage.kept[row]]] = False
            hidden[stage.layer :, row, :, gone] = True
            new = gone & ~before
            lowered[stage.layer :, row] += new.cumsum(0) - new.long()
            before = gone
    return Cuts(hidden, positions - lowered if renumber and positions is not None else None)


class Decoder:
    """The decoder of a stock model with eager attention, found by the names of its family."""

    def __init__(self, model: nn.Module, family: sl.Family) -> None:
        decoder = decoder_of(model, family)
        self.layers = list(getattr(decoder, family.layers))
        self.rotary: Any = getattr(decoder, family.rotary)
        self.kinds: Any = getattr(decoder.config, "layer_types", None)

    @contextmanager
    def under(self, cuts: Cuts) -> Iterator[None]:
        """Let its queries see no more than that while the block lasts."""
        with ExitStack() as stack:
            for index, layer in enumerate(self.layers):
                hook = self._hook(index, cuts.hidden[index], None if cuts.positions is None else cuts.positions[index])
                stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield

    def _hook(self, index: int, hidden: torch.Tensor, positions: torch.Tensor | None) -> Any:
        itself = torch.eye(hidden.shape[-1], dtype=torch.bool)
        gone = hidden[:, None] & ~itself  # padding sees itself, so that no row sees nothing

        def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            mask, changes = kwargs.get("attention_mask"), {}
            if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
                raise sl.UnsupportedModel(
                    f"{type(module).__name__} is given no 4-D attention mask, so there is nothing to compare with"
                )
            lowest = torch.finfo(mask.dtype).min if mask.is_floating_point() else False
            changes["attention_mask"] = mask.masked_fill(gone, lowest)
            if positions is not None:
                states = args[0] if args else kwargs["hidden_states"]
                changes["position_embeddings"] = self._turned(index, states, positions)
                changes["position_ids"] = positions
            return args, {**kwargs, **changes}

        return before

    def _turned(self, index: int, states: torch.Tensor, positions: torch.Tensor) -> Any:
        if "layer_type" in inspect.signature(self.rotary.forward).parameters:
            return self.rotary(states, positions, self.kinds[index])
        return self.rotary(states, position_ids=positions)
