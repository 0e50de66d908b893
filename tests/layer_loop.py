"""The oracle for decoders with recurrent layers: the untouched model's own layers, called one after the other.

A recurrent layer carries what it has seen along in a state, so hiding a token from later queries is not the same as
leaving it out. Here it is left out: every row runs alone, without padding, and before layer k the dropped tokens are
taken away. What comes after the prompt stands behind it in the same sequence: to go on from a cache must equal that.
Of the library only what strategies say of themselves is used.
"""

import contextlib
import inspect
from dataclasses import dataclass

import torch
from patch_oracle import inside_oracle
from transformers.modeling_outputs import MoeModelOutputWithPast

from seeless.strategy import Stage

RECURRENT = ("linear_attention", "conv")


def decoder_of(model):
    base = model.model
    return base.language_model if hasattr(base, "language_model") else base.text_model


def has_recurrent_layers(model):
    kinds = getattr(decoder_of(model).config, "layer_types", None) or []
    return any(kind in RECURRENT for kind in kinds)


def by_layer(model, maps):
    """Attention maps of a decoder by layer: of one without attention, those of the nearest before that has some."""
    kinds = getattr(decoder_of(model).config, "layer_types", None) or ["full_attention"] * len(maps)
    found, left, last = {}, list(maps), None
    for index, kind in enumerate(kinds):
        last = last if kind in RECURRENT else left.pop(0)
        found[index] = last
    assert not left
    return found


@dataclass(frozen=True)
class Leaving:
    """What leaves a row before a layer.

    Args:
        gone: `[length]` bool, everything that has left the turn's tokens by then.
        new: `[length]` bool, what leaves here.
        trims: whether what is gone leaves the caches of the layers before, too, for queries from `end` on.
        renumbers: whether later positions close up, where they have one axis.
    """

    layer: int
    row: int
    gone: torch.Tensor
    new: torch.Tensor
    trims: bool
    renumbers: bool
    end: int


def in_flow(strategies, depth):
    """`(layer, part, its how manieth stage)` in the order of the flow: before one layer the tower first, else as
    given."""
    stages = [
        (layer, part, number)
        for strategy in strategies
        for part in strategy.parts()
        for number, layer in enumerate(part.layers(depth))
    ]
    return sorted(stages, key=lambda stage: (stage[0], stage[1].stage is not Stage.TOWER))


def leavings(strategies, turns, depth, length):
    """What reports say of who leaves, stage by stage and row by row. A stage that takes nothing from a row leaves its
    caches alone."""
    for turn in turns:
        for row, columns in enumerate(turn.columns):
            before = torch.zeros(length, dtype=torch.bool)
            stages = zip(turn.report.stages, in_flow(strategies, depth), strict=False)  # the first ones, at least
            for stage, (layer, part, number) in stages:
                assert (stage.layer, stage.strategy) == (layer, part.name)
                gone = torch.zeros(length, dtype=torch.bool)
                gone[columns] = True
                gone[columns[stage.kept[row]]] = False
                new = gone & ~before
                trims = part.past == "trim" and bool(new.any())
                yield Leaving(layer, row, gone, new, trims, part.positions_at(number) == "renumber", turn.end)
                before = gone


class LayerLoop:
    """In place of the forward of an untouched model's decoder, with eager attention, while `with` lasts.

    The output has all columns; those of padding and of dropped tokens are worth nothing. Arguments as `MaskOracle`'s.
    """

    def __init__(self, model, strategies, turns, attention_mask, merged=None, at_layers=None, tower=None, watches=()):
        self.tower = None if tower is None else inside_oracle(model, tower)
        self.decoder, self.merged, self.watches = decoder_of(model), merged, watches
        self.at_layers = at_layers or {}
        config = self.decoder.config
        self.kinds, self.depth = config.layer_types, config.num_hidden_layers
        self.asks = inspect.signature(self.decoder.rotary_emb.forward).parameters
        self.real = attention_mask.bool()
        batch, length = attention_mask.shape
        self.gone = torch.zeros(self.depth + 1, batch, length, dtype=torch.bool)
        self.hidden = torch.zeros(self.depth, batch, length, length, dtype=torch.bool)  # [layer, row, query, key]
        self.lowered = torch.zeros(self.depth, batch, length, dtype=torch.long)
        for own in leavings(strategies, turns, self.depth, length):
            self.gone[own.layer :, own.row] |= own.gone
            if own.trims:
                self.hidden[: own.layer, own.row, own.end :] |= own.gone
            if own.renumbers:
                self.lowered[own.layer :, own.row] += own.new.cumsum(0) - own.new.long()

    def _forward(self, input_ids=None, inputs_embeds=None, position_ids=None, **unused):
        states = inputs_embeds if self.merged is None else self.merged(inputs_embeds)
        positions = torch.arange(states.shape[1])[None] if position_ids is None else position_ids
        positions = positions[-3:] if positions.ndim == 3 else positions
        for index in range(self.depth):
            if index in self.at_layers:
                states = self.at_layers[index](states)(states)
            states = torch.stack([self._row(index, row, own, positions) for row, own in enumerate(states)])
        norm = self.decoder.norm if hasattr(self.decoder, "norm") else self.decoder.embedding_norm
        return MoeModelOutputWithPast(last_hidden_state=norm(states))

    def _row(self, index, row, states, positions):
        """`states` `[seq, dim]` of a row after a layer that saw what is left."""
        columns = (self.real[row] & ~self.gone[index, row]).nonzero()[:, 0]
        own = states[columns][None]
        at = positions.expand(*positions.shape[:-2], len(self.real), -1)[..., row, columns][..., None, :]
        mask = rotary = None
        if self.kinds[index] not in RECURRENT:
            unseen = torch.ones(len(columns), len(columns), dtype=torch.bool).triu(1)
            unseen |= self.hidden[index, row][columns][:, columns]
            if self.kinds[index] == "sliding_attention":
                unseen |= columns[:, None] - columns >= self.decoder.config.sliding_window
            mask = torch.zeros(1, 1, *unseen.shape, dtype=own.dtype)
            mask = mask.masked_fill(unseen, torch.finfo(torch.float32).min)
            lowered = 0 if positions.ndim == 3 else self.lowered[index, row, columns]
            by_kind = {"layer_type": self.kinds[index]} if "layer_type" in self.asks else {}
            rotary = self.decoder.rotary_emb(own, at - lowered, **by_kind)
        out = self.decoder.layers[index](own, attention_mask=mask, position_embeddings=rotary, position_ids=None)
        return states.index_copy(0, columns, out[0])

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        if self.tower is not None:
            self.stack.enter_context(self.tower)
        for module, hook in self.watches:
            self.stack.callback(module.register_forward_hook(hook).remove)
        self.decoder.forward = self._forward
        self.stack.callback(vars(self.decoder).pop, "forward")
        return self

    def __exit__(self, *error):
        self.stack.close()
