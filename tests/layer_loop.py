"""The oracle for decoders with recurrent layers: the untouched model's own layers, called one after the other.

A recurrent layer carries what it has seen along in a state, so hiding a token from later queries is not the same as
leaving it out. Here it is left out: every row runs alone, without padding, and before layer k the dropped tokens are
taken away. What comes after the prompt stands behind it in the same sequence: to go on from a cache must equal that.
Nothing of the library is used.
"""

import contextlib
import inspect

import torch
from patch_oracle import inside_oracle
from transformers.modeling_outputs import MoeModelOutputWithPast

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
        by_name = {part.name: part for strategy in strategies for part in strategy.parts()}
        for turn in turns:
            for row, columns in enumerate(turn.columns):
                before = torch.zeros(length, dtype=torch.bool)
                for number, stage in enumerate(turn.report.stages):
                    strategy = by_name[stage.strategy]
                    dropped = torch.zeros(length, dtype=torch.bool)
                    dropped[columns] = True
                    dropped[columns[stage.kept[row]]] = False
                    self.gone[stage.layer :, row] |= dropped
                    if strategy.past == "trim":
                        self.hidden[: stage.layer, row, turn.end :] |= dropped
                    new = dropped & ~before
                    if strategy.positions_at(number) == "renumber":
                        self.lowered[stage.layer :, row] += new.cumsum(0) - new.long()
                    before = dropped

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
