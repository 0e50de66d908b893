"""The mask oracle: the untouched model, told layer by layer which keys it must not see.

It removes nothing. Dropping tokens before layer k must equal forbidding the same keys from layer k on; a trimmed cache
must equal hiding the dropped keys from all later queries in the earlier layers, too.
"""

import contextlib
import inspect
import math
from dataclasses import dataclass

import torch

from seeless.ops.pooling import pooling_cells
from tower_oracle import TowerOracle


@dataclass
class Turn:
    """One prefill with pictures: its report, the columns of its visual tokens per row, and where its prompt ends."""

    report: object
    columns: list
    end: int


def turn_of(report, input_ids, tokens, start=0):
    """`tokens`: the ids of placeholders, one or several."""
    visual = torch.isin(input_ids, torch.tensor(tokens))
    columns = [row[start:].nonzero()[:, 0] + start for row in visual]
    return Turn(report, columns, input_ids.shape[1])


def decoder_of(model):
    base = model.model
    return base.language_model if hasattr(base, "language_model") else base.text_model


class MaskOracle:
    """Hooks on an untouched model with eager attention, while `with` lasts.

    Args:
        attention_mask: `[batch, seq]` of everything, answers included.
        merged: what becomes of the embeddings `[batch, seq, dim]` where a method merges tokens at the entry.
        tower: the strategy that merges inside the vision tower, if one does; see `TowerOracle`.
        at_layers: by layer, what the hidden states that it takes in make of anything `[batch, seq, dim]`, those states
            and features that are still to come alike; both worked out by somebody else.
    """

    def __init__(self, model, strategies, turns, attention_mask, merged=None, at_layers=None, tower=None):
        self.tower = None if tower is None else TowerOracle(model, tower)
        self.decoder = decoder_of(model)
        self.depth = len(self.decoder.layers)
        self.batch, self.length = attention_mask.shape
        self.merged = merged
        self.at_layers = at_layers or {}
        axes = getattr(self.decoder.rotary_emb, "mrope_section", None)
        shape = (self.depth, self.batch, self.length, self.length)
        self.hidden = torch.zeros(shape, dtype=torch.bool)  # [layer, row, query, key]
        self.lowered = torch.zeros(self.depth, self.batch, self.length, dtype=torch.long)
        by_name = {part.name: part for strategy in strategies for part in strategy.parts()}
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
                    if (strategy.positions or strategy.own_positions) == "renumber" and axes is None:
                        self.lowered[stage.layer :, row] += new.cumsum(0) - new.long()
                    before = gone

    def _before_layer(self, index):
        def hook(module, args, kwargs):
            states, given = args[0], kwargs["attention_mask"]
            if index in self.at_layers:
                merge = self.at_layers[index](states)
                states = merge(states)
                self._merge_features(merge, states, index)
            itself = torch.eye(self.length, dtype=torch.bool)
            mask = given.masked_fill(self.hidden[index][:, None], torch.finfo(given.dtype).min)
            mask = mask.masked_fill(itself, 0)  # padding sees itself, so that no row sees nothing
            changes = {"attention_mask": mask, "position_ids": None}
            if self.lowered[index].any():  # positions are relative: where a row begins does not matter
                positions = torch.arange(self.length)[None] - self.lowered[index]
                rotary = self.decoder.rotary_emb
                if "layer_type" in inspect.signature(rotary.forward).parameters:
                    kind = self.decoder.config.layer_types[index]
                    changes["position_embeddings"] = rotary(states, positions, kind)
                else:
                    changes["position_embeddings"] = rotary(states, position_ids=positions)
            return (states, *args[1:]), {**kwargs, **changes}

        return hook

    def _embed(self, module, args, kwargs):
        self.visual, self.features = kwargs.get("visual_pos_masks"), None
        changes = {}
        if kwargs.get("deepstack_visual_embeds") is not None:  # added to the states after the first layers
            self.features = changes["deepstack_visual_embeds"] = list(kwargs["deepstack_visual_embeds"])
        if self.merged is not None:
            changes["inputs_embeds"] = self.merged(kwargs["inputs_embeds"])
            self._merge_features(self.merged, kwargs["inputs_embeds"])
        return args, {**kwargs, **changes}

    def _merge_features(self, merge, states, first=0):
        """Features that are added after layers from `first` on are merged like the tokens they belong to."""
        for layer in range(first, len(self.features or [])):
            full = torch.zeros_like(states)
            full[self.visual] = self.features[layer]
            self.features[layer] = merge(full)[self.visual]

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        if self.tower is not None:
            self.stack.enter_context(self.tower)
        handles = [
            layer.register_forward_pre_hook(self._before_layer(i), with_kwargs=True)
            for i, layer in enumerate(self.decoder.layers)
        ]
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


def merges_of(strategy, turn, grids):
    """`MaskOracle`'s arguments for a strategy that changes what it keeps; none for the others."""
    if strategy.name == "pool":
        return {"merged": pooled(turn, grids)}
    if strategy.name == "sparsevlm" and strategy.version == "1.0":
        return {"at_layers": recycled(turn, strategy)}
    if strategy.name == "tome":
        return {"tower": strategy}
    return {}


def recycled(turn, strategy):
    """How version 1.0 of SparseVLM merges at each of its layers: `{layer: states -> (anything -> anything merged)}`.

    From the reported scores and budgets alone; the clusters are worked out again, one unit (= row) after another.
    """

    def at(stage, earlier):
        def clusters_of(states):
            found = []
            for row, columns in enumerate(turn.columns):
                alive = columns.tolist() if earlier is None else columns[earlier.kept[row]].tolist()
                kept = columns[stage.kept[row]].tolist()
                if len(alive) == len(kept):
                    continue
                values = states[row, alive].detach().double().tolist()
                stay, clusters = by_plain_recycling(stage.scores[row].tolist(), values, len(kept), strategy.seed)
                assert sorted(alive[i] for i in [*stay, *clusters]) == kept
                found += [(row, alive[c], [alive[i] for i in members]) for c, members in clusters.items()]

            def merge(old):
                new = old.clone()
                for row, centre, members in found:
                    new[row, centre] = old[row, members].mean(0)
                return new

            return merge

        return clusters_of

    stages = turn.report.stages
    return {stage.layer: at(stage, earlier) for earlier, stage in zip([None, *stages], stages, strict=False)}


def by_plain_recycling(scores, values, budget, seed=0):
    """methods.md 7.3 with lists: places that stay as they are, and `{centre: members}` of the clusters."""
    visual, clusters = len(scores), 0
    while budget < visual and clusters < budget - 1:
        if (math.floor(0.3 * (visual - budget + clusters)) + 1) // 10 + 1 == clusters:
            break
        clusters += 1
    order = sorted(range(visual), key=lambda i: (-scores[i], i))
    kept = budget - clusters
    stay = order[:kept]
    if clusters == 0:
        return stay, {}
    again = order[kept : kept + math.floor(0.3 * (visual - kept)) + 1]
    noise = torch.rand(len(again), generator=torch.Generator().manual_seed(seed)).tolist()
    return stay, {
        again[c]: [again[i] for i in own] for c, own in plain_peaks([values[i] for i in again], clusters, noise)
    }


def plain_peaks(points, count, noise):
    """`(centre, members)` of the clusters, by density peaks, one distance after another."""
    dim, n = len(points[0]), len(points)
    far = [[math.dist(p, q) / math.sqrt(dim) for q in points] for p in points]
    dense = [math.exp(-sum(d * d for d in sorted(far[i])[:count]) / count) + noise[i] * 1e-6 for i in range(n)]
    widest = max(map(max, far))
    gap = [min([far[i][j] for j in range(n) if dense[j] > dense[i]], default=widest) for i in range(n)]
    centres = sorted(range(n), key=lambda i: (-dense[i] * gap[i], i))[:count]
    members = {c: [] for c in centres}
    for i in range(n):
        members[i if i in members else min(centres, key=lambda c: far[i][c])].append(i)
    return list(members.items())
