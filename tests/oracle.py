"""The mask oracle: the untouched model, told layer by layer which keys it must not see.

It removes nothing. Dropping tokens before layer k must equal forbidding the same keys from layer k on; a trimmed cache
must equal hiding the dropped keys from all later queries in the earlier layers, too.
"""

import contextlib
from dataclasses import dataclass

import torch

from seeless.ops.pooling import pooling_cells


@dataclass
class Turn:
    """One prefill with images: its report, the columns of its visual tokens per row, and where its prompt ends."""

    report: object
    columns: list
    end: int


def turn_of(report, input_ids, image_token, start=0):
    columns = [(row[start:] == image_token).nonzero()[:, 0] + start for row in input_ids]
    return Turn(report, columns, input_ids.shape[1])


class MaskOracle:
    """Hooks on an untouched model with eager attention, while `with` lasts."""

    def __init__(self, model, strategies, turns, attention_mask, merged=None):
        self.decoder = model.model.language_model
        self.depth = len(self.decoder.layers)
        self.valid = attention_mask.bool()
        self.batch, self.length = attention_mask.shape
        self.merged = merged
        shape = (self.depth, self.batch, self.length, self.length)
        self.hidden = torch.zeros(shape, dtype=torch.bool)  # [layer, row, query, key]
        self.lowered = torch.zeros(self.depth, self.batch, self.length, dtype=torch.long)
        by_name = {strategy.name: strategy for strategy in strategies}
        for turn in turns:
            for row, columns in enumerate(turn.columns):
                before = torch.zeros(self.length, dtype=torch.bool)
                for stage in turn.report.stages:
                    strategy = by_name[stage.strategy]
                    gone = torch.zeros(self.length, dtype=torch.bool)
                    gone[columns] = True
                    gone[columns[stage.kept[row]]] = False
                    self.hidden[stage.layer :, row, :, gone] = True
                    if strategy.past == "trim":
                        self.hidden[: stage.layer, row, turn.end :] |= gone
                    new = gone & ~before
                    if strategy.positions == "renumber":
                        self.lowered[stage.layer :, row] += new.cumsum(0) - new.long()
                    before = gone

    def _before_layer(self, index):
        def hook(module, args, kwargs):
            states = args[0]
            positions = (self.valid.long().cumsum(1) - 1).clamp(min=0) - self.lowered[index]
            order = torch.arange(self.length)
            seen = (order <= order[:, None]) & self.valid[:, None] & ~self.hidden[index]
            seen = seen | torch.eye(self.length, dtype=torch.bool)
            mask = torch.zeros(seen.shape, dtype=states.dtype).masked_fill(~seen, torch.finfo(states.dtype).min)
            rotary = self.decoder.rotary_emb(states, position_ids=positions)
            changes = {"attention_mask": mask[:, None], "position_embeddings": rotary, "position_ids": None}
            return args, {**kwargs, **changes}

        return hook

    def _embed(self, module, args, kwargs):
        return args, {**kwargs, "inputs_embeds": self.merged(kwargs["inputs_embeds"])}

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        handles = [
            layer.register_forward_pre_hook(self._before_layer(i), with_kwargs=True)
            for i, layer in enumerate(self.decoder.layers)
        ]
        if self.merged is not None:
            handles.append(self.decoder.register_forward_pre_hook(self._embed, with_kwargs=True))
        for handle in handles:
            self.stack.callback(handle.remove)
        return self

    def __exit__(self, *error):
        self.stack.close()


def pooled(turn, grids):
    """What `pool` puts in place of the tokens it keeps: plain averages over the cells.

    `grids`: per row, `(columns, height, width)` of every crop, the columns in raster order.
    """

    def merge(embeds):
        result = embeds.clone()
        for row, crops in enumerate(grids):
            kept = set(turn.columns[row][turn.report.stages[0].kept[row]].tolist())
            for columns, height, width in crops:
                count = sum(column in kept for column in columns)
                cell, centre = pooling_cells(height, width, count)
                for number in range(count):
                    members = [columns[i] for i, c in enumerate(cell.tolist()) if c == number]
                    assert columns[centre[number]] in kept
                    result[row, columns[centre[number]]] = embeds[row, members].mean(0)
        return result

    return merge
