"""The mask oracle: the untouched model, told layer by layer which keys it must not see.

It removes nothing. Dropping tokens before layer k must equal forbidding the same keys from layer k on; a trimmed cache
must equal hiding the dropped keys from all later queries in the earlier layers, too.
"""

import contextlib
import inspect
import math
from dataclasses import dataclass

import torch
from patch_oracle import inside_oracle
from video_oracle import PLAIN, merged_videos

import seeless as sl
from layer_loop import LayerLoop, decoder_of, has_recurrent_layers, leavings
from seeless.ops.pooling import pooling_cells


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


def oracle_of(model, *args, **kwargs):
    """The oracle that fits a model: masks, or, where layers are recurrent and masks are not enough, a loop over layers.
    Arguments as `MaskOracle`'s."""
    return (LayerLoop if has_recurrent_layers(model) else MaskOracle)(model, *args, **kwargs)


class MaskOracle:
    """Hooks on an untouched model with eager attention, while `with` lasts.

    Args:
        attention_mask: `[batch, seq]` of everything, answers included.
        merged: what becomes of the embeddings `[batch, seq, dim]` where a method merges tokens at the entry.
        tower: the strategy that merges inside the vision tower, if one does; see `inside_oracle`.
        at_layers: by layer, what the hidden states that it takes in make of anything `[batch, seq, dim]`, those states
            and features that are still to come alike; both worked out by somebody else.
        watches: `(module, forward hook)`s that they need.
    """

    def __init__(self, model, strategies, turns, attention_mask, merged=None, at_layers=None, tower=None, watches=()):
        self.tower = None if tower is None else inside_oracle(model, tower)
        self.decoder = decoder_of(model)
        self.depth = len(self.decoder.layers)
        self.batch, self.length = attention_mask.shape
        self.merged = merged
        self.watches = watches
        self.at_layers = at_layers or {}
        axes = getattr(self.decoder.rotary_emb, "mrope_section", None)
        shape = (self.depth, self.batch, self.length, self.length)
        self.hidden = torch.zeros(shape, dtype=torch.bool)  # [layer, row, query, key]
        self.lowered = torch.zeros(self.depth, self.batch, self.length, dtype=torch.long)
        for own in leavings(strategies, turns, self.depth, self.length):
            self.hidden[own.layer :, own.row, :, own.gone] = True
            if own.trims:
                self.hidden[: own.layer, own.row, own.end :] |= own.gone
            if own.renumbers and axes is None:
                self.lowered[own.layer :, own.row] += own.new.cumsum(0) - own.new.long()

    def _before_layer(self, index):
        def hook(module, args, kwargs):
            states, given = args[0], kwargs["attention_mask"]
            if index in self.at_layers:
                merge = self.at_layers[index](states)
                states = merge(states)
                self._merge_features(merge, states, self.to_come(index))
            itself = torch.eye(self.length, dtype=torch.bool)
            mask = given.masked_fill(self.hidden[index][:, None], torch.finfo(given.dtype).min)
            mask = mask.masked_fill(itself, 0)  # padding sees itself, so that no row sees nothing
            changes = {"attention_mask": mask, "position_ids": None}
            if self.lowered[index].any():  # positions are relative: where a row begins does not matter
                whole = kwargs.get("position_ids")
                whole = torch.arange(self.length)[None] if whole is None or whole.ndim != 2 else whole
                positions = whole - self.lowered[index]
                rotary = self.decoder.rotary_emb
                if "layer_type" in inspect.signature(rotary.forward).parameters:
                    kind = self.decoder.config.layer_types[index]
                    changes["position_embeddings"] = rotary(states, positions, kind)
                else:
                    changes["position_embeddings"] = rotary(states, position_ids=positions)
            return (states, *args[1:]), {**kwargs, **changes}

        return hook

    def _embed(self, module, args, kwargs):
        self.visual, self.features, self.to_come = kwargs.get("visual_pos_masks"), None, lambda index: ()
        changes = {}
        if kwargs.get("deepstack_visual_embeds") is not None:  # added to the states after the first layers
            self.features = changes["deepstack_visual_embeds"] = list(kwargs["deepstack_visual_embeds"])
            self.to_come = lambda index: range(max(index, 0), len(self.features))
        if kwargs.get("deepstack_features") is not None:  # added to the states before some layers
            self.features = changes["deepstack_features"] = dict(kwargs["deepstack_features"])
            self.to_come = lambda index: [layer for layer in self.features if layer > index]
            self.visual = kwargs["vision_mask"][..., 0]
            if self.merged is not None:  # what is found in embeddings is found in what stands for them, in their scale
                embeds = kwargs["inputs_embeds"].clone()
                embeds[self.visual] = self.features[0] / self.decoder.config.embedding_multiplier
                self.merged(embeds)
        if self.merged is not None:
            changes["inputs_embeds"] = self.merged(kwargs["inputs_embeds"])
            self._merge_features(self.merged, kwargs["inputs_embeds"], self.to_come(-1))
        return args, {**kwargs, **changes}

    def _merge_features(self, merge, states, places):
        """Features that are added at these places later are merged like the tokens they belong to."""
        for place in places:
            full = torch.zeros_like(states)
            full[self.visual] = self.features[place]
            self.features[place] = merge(full)[self.visual]

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        if self.tower is not None:
            self.stack.enter_context(self.tower)
        handles = [
            layer.register_forward_pre_hook(self._before_layer(i), with_kwargs=True)
            for i, layer in enumerate(self.decoder.layers)
        ]
        handles += [module.register_forward_hook(hook, with_kwargs=True) for module, hook in self.watches]
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


def averaged(turn, grids):
    """What `vscan` makes of the tokens it keeps: the mean with all others of the crop that resemble them most."""
    groups = []  # as embeddings have it; features that are added later follow

    def find(embeds):
        for row, crops in enumerate(grids):
            kept = set(turn.columns[row][turn.report.stages[0].kept[row]].tolist())
            for columns, _, _ in crops:
                stay = [column for column in columns if column in kept]
                gone = [column for column in columns if column not in kept]
                directions = torch.nn.functional.normalize(embeds[row].double(), dim=-1)
                nearest = (directions[gone] @ directions[stay].T).argmax(1).tolist()
                for number, column in enumerate(stay):
                    members = [column, *(other for other, near in zip(gone, nearest, strict=True) if near == number)]
                    groups.append((row, column, members))

    def merge(embeds):
        if not groups:
            find(embeds)
        result = embeds.clone()
        for row, column, members in groups:
            result[row, column] = embeds[row, members].mean(0)
        return result

    return merge


def merges_of(strategy, turn, grids, model=None, untouched=None, inputs=None):
    """`MaskOracle`'s arguments for a strategy that changes what it keeps; none for the others.

    `untouched` is the model that the oracle runs; `model`, a copy of it, may carry a handle here.
    """
    if strategy.name in ("visionzip", "prumerge", "prumerge_plus"):
        return summed(strategy, turn, model, untouched, inputs)
    if strategy.name in PLAIN:
        return merged_videos(strategy, turn, model, inputs)
    if strategy.name == "vscan":
        return {"merged": averaged(turn, grids)}
    if strategy.name == "pool":
        return {"merged": pooled(turn, grids)}
    if strategy.name == "sparsevlm" and strategy.version == "1.0":
        return {"at_layers": recycled(turn, strategy)}
    if strategy.name in ("tome", "flowcut", "mustdrop", "pixelprune"):
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


def tower_signals(model, inputs):
    """Per crop, what the tower shows of it: `(row, places among the row's visual tokens, its signals)`."""
    seen = []

    class Spy(sl.EntryStrategy):
        def select(self, ctx):
            units = zip(ctx.sources.group.units, ctx.vision_attention(), ctx.vision_keys(), strict=True)
            for i, (unit, attention, keys) in enumerate(units):
                signals = {"attention": attention, "keys": keys, "reader": ctx.reader_attention()[i]}
                seen.append((unit.row, torch.from_numpy(unit.tokens), {**signals, "reader_keys": ctx.reader_keys()[i]}))
            return sl.Keep(torch.ones(ctx.index.shape, dtype=torch.bool))

    with torch.no_grad(), sl.apply(model, Spy(keep=10**6, scope="crop")):
        model(**inputs)
    return seen


def projector_of(base):
    """What takes in one vector per token, where there is such a module."""
    names = ("multi_modal_projector", "aligner", "embed_vision")
    return next((getattr(base, name) for name in names if getattr(base, name, None) is not None), None)


class TowerWatch:
    """What an untouched model's projectors took in and gave, call after call, and the towers' class tokens."""

    def __init__(self, model):
        self.calls, self.leads, base = [], [], model.model
        self.clip = model.config.vision_config.model_type == "clip_vision_model"
        self.layer = getattr(model.config, "vision_feature_layer", None)
        self.projector = projector_of(base)
        names = ("vision_tower", "vision_model", "image_tower", "video_tower")
        towers = [getattr(base, name) for name in names if hasattr(base, name)]
        self.watches = [(self.projector, self._projected)]
        self.watches += [(tower, self._encoded) for tower in towers if self.clip]

    def _projected(self, module, args, kwargs, output):
        self.calls.append((args[0] if args else kwargs["inputs_embeds"], output))

    def _encoded(self, module, args, kwargs, output):
        layers = [self.layer] if isinstance(self.layer, int) else self.layer
        self.leads.append(torch.cat([output.hidden_states[layer][:, 0] for layer in layers], -1))

    def take(self):
        """All features `[tokens, dim]`, what came of them `[tokens, hidden]`, and each one's class token or None."""
        calls, leads = self.calls, self.leads
        self.calls, self.leads = [], []
        given = torch.cat([taken.flatten(0, -2) for taken, _ in calls])
        became = torch.cat([output.flatten(0, -2) for _, output in calls])
        if not self.clip:
            return given, became, None
        return (
            given,
            became,
            torch.cat([own.repeat_interleave(taken.shape[1], 0) for own, (taken, _) in zip(leads, calls, strict=True)]),
        )


def summed(strategy, turn, model, untouched, inputs):
    """Sums of what the projector takes in, through the model's own projector; elsewhere sums of the embeddings.

    Which tokens are summed is worked out again from the tower's signals. Which features belong to a token is found by
    what became of them.
    """
    whole = projector_of(untouched.model) is None or untouched.config.model_type in WHOLE
    watch = None if whole else TowerWatch(untouched)
    crops = tower_signals(model, inputs)

    def merge(embeds):
        result = embeds.clone()
        given, became, leads = (None, None, None) if whole else watch.take()
        for row, tokens, signals in crops:
            columns = turn.columns[row][tokens]
            own, lead = embeds[row, columns], None
            if not whole:
                origin = torch.cdist(own.detach(), became.detach()).argmin(1)
                assert torch.allclose(own, became[origin], atol=1e-6)
                own, lead = given[origin], None if leads is None else leads[origin[0]]
            sums = plain_sums(strategy, signals, lead is not None)
            kept = set(turn.columns[row][turn.report.stages[0].kept[row]].tolist())
            if sums:
                assert kept & set(columns.tolist()) == {int(columns[place]) for place in sums}
            for place, weights in sums.items():
                value = sum(weight * (lead if i == len(own) else own[i]) for i, weight in weights.items())
                result[row, columns[place]] = value if whole else watch.projector(value[None])[0]
        return result

    return {"merged": merge, "watches": [] if whole else watch.watches}


# Projectors that take more than one vector per token.
WHOLE = (
    *("mistral3", "gemma3", "llava_onevision", "deepseek_vl_hybrid", "aya_vision", "cohere2_vision"),
    *("lfm2_vl", "lfm3_vl", "granite4_vision"),
)


def plain_sums(strategy, signals, led):
    """By kept place, the weight of every token in its sum; nothing if all tokens stay as they are."""
    visual = signals["attention"].shape[-1]
    budget = None if strategy.keep is None else strategy.count(0, visual)
    if strategy.name == "visionzip":
        scores, keys = signals["attention"].double().mean(0).tolist(), signals["keys"].double().mean(0).tolist()
        return plain_zip(scores, keys, budget, strategy.contextual_share, led, strategy.positions == "keep")
    scores, keys = signals["reader"].double().tolist(), signals["reader_keys"].double().tolist()
    return plain_prumerge(scores, keys, budget, strategy.neighbours, strategy.name == "prumerge_plus")


def plain_cosine(a, b):
    size = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / size if size else 0.0


def plain_zip(scores, keys, budget, share, led, in_place=False):
    """methods.md 8 with lists; the class token is number `len(scores)`."""
    visual = len(scores)
    if budget >= visual:
        return {}
    contextual = min(round(budget * share), budget - 1)
    ranked = sorted(range(visual), key=lambda i: (-scores[i], i))
    dominant = sorted(ranked[: budget - contextual - led])
    rest = sorted(ranked[budget - contextual - led :])
    target = rest[:: max(1, len(rest) // contextual)][:contextual] if contextual else []
    joined = {t: [] for t in target}
    for i in rest if target else []:
        if i not in joined:
            joined[max(target, key=lambda t: (plain_cosine(keys[i], keys[t]), -t))].append(i)
    sums = [{i: 1.0} for i in dominant]
    sums += [{t: 1.0, **{i: 1 / len(own) for i in own}} for t, own in joined.items()]
    places = dominant + target
    if led:
        sums.insert(0, {visual: 1.0})
        places.insert(0, min(set(range(visual)) - set(places)))
        places = places if in_place else sorted(places)
    return dict(zip(places, sums, strict=True))


def plain_quantile(values, share):
    """Linear between the two nearest of the sorted values."""
    ranked, at = sorted(values), share * (len(values) - 1)
    low = math.floor(at)
    return ranked[low] + (at - low) * (ranked[min(low + 1, len(values) - 1)] - ranked[low])


def plain_prumerge(scores, keys, budget, neighbours, plus):
    """methods.md 10 with lists; `budget` None: as many as stand out."""
    visual = len(scores)
    if budget is not None and budget >= visual:
        return {}
    ranked = sorted(range(visual), key=lambda i: (-scores[i], i))
    if budget is None:
        low, high = plain_quantile(scores, 0.25), plain_quantile(scores, 0.75)
        count = max(1, sum(c > high + 1.5 * (high - low) for c in scores))
        kept = set(ranked[:count])
        if plus:
            kept |= set(range(0, visual - 1, max(1, visual // count // 3)))
    elif plus:
        count = max(1, (budget - 1) // 4)
        rest, spread = sorted(ranked[count:]), budget - 1 - count
        kept = set(ranked[:count]) | {rest[i * len(rest) // spread] for i in range(spread)}
    else:
        kept = set(ranked[: max(1, budget - 1)])
    sums = {}
    for i in sorted(kept):
        others = sorted((j for j in range(visual) if j != i), key=lambda j: (-plain_cosine(keys[i], keys[j]), j))
        sums[i] = {i: 1.0, **{j: scores[j] for j in others[:neighbours]}}
    gone = sorted(set(range(visual)) - kept)
    if gone and budget != 1:
        sums[gone[-1]] = {j: scores[j] for j in gone}
    return sums
