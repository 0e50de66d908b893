"""What patches that leave inside a vision tower must come to, in an untouched tower that keeps every patch.

No sequence gets shorter: from the layer on before which a patch leaves, nobody attends to it, and what it is does not
matter. Which patches leave is worked out again, with lists, from what this tower itself makes of its input.
"""

import torch
from plain_patches import plain_cut, plain_flow, plain_pixelprune, plain_windows

from tower_oracle import TowerOracle, first_of, layers_of


def inside_oracle(model, strategy):
    """The oracle for a strategy that acts inside the tower."""
    return (PatchOracle if hasattr(strategy, "leave") else TowerOracle)(model, strategy)


class PatchOracle(TowerOracle):
    """Hooks on the towers of an untouched eager model, while `with` lasts.

    `left`: after a run, per kind and picture, the tokens that are left, by their places in the order of reading.
    """

    def __enter__(self):
        self.left, self.pixels = {}, None
        super().__enter__()
        return self

    def _hook_layers(self, tower):
        layers = layers_of(tower)
        choice = getattr(self.config, "vision_feature_layer", -1)
        chosen = [choice] if isinstance(choice, int) else choice
        self.made = max((own if own >= 0 else len(layers) + 1 + own) - 1 for own in chosen)
        for index, layer in enumerate(layers):
            self._hook(layer.register_forward_pre_hook(self._ahead(index), with_kwargs=True))
            attention = first_of(layer, "self_attn", "attention", "attn")
            self._hook(attention.register_forward_hook(self._attend, with_kwargs=True))

    def _begin(self, tower, args, kwargs):
        super()._begin(tower, args, kwargs)
        given = args[0] if args else next(iter(kwargs.values()))
        self.pixels = given.detach()

    def _ahead(self, index):
        def hook(layer, args, kwargs):
            hidden = args[0]
            if index == 0:
                self._lay_out(hidden)
            decide = {"pixelprune": self._pixelprune, "flowcut": self._flowcut, "mustdrop": self._mustdrop}
            changed = decide[self.strategy.name](index, hidden.flatten(0, -2))
            self.weight = [1.0] * hidden.shape[:-1].numel()
            for picture, alive in zip(self.places, self.alive, strict=True):
                for token, places in enumerate(picture):
                    for place in places:
                        self.weight[place] = float(token in alive)
            return None if changed is None else ((changed.view(hidden.shape), *args[1:]), kwargs)

        return hook

    def _lay_out(self, hidden):
        """`places[p][t]`: where the patches of token t of picture p are, tokens in the order of reading; `sides`."""
        self._start(hidden)
        self.block = len(self.tokens[0])
        rows, length = (1, len(hidden)) if hidden.ndim == 2 else hidden.shape[:2]
        side = round((length - self.lead) ** 0.5)
        block = round(self.block**0.5)
        self.sides = [(h // block, w // block) for h, w in (self.grids or [(side, side)] * rows)]
        self.places = [[list(self.tokens[group[0]]) for group in groups] for groups in self.pictures]
        self.given = self.places
        if hasattr(self.config.vision_config, "fullatt_block_indexes"):  # tokens of a window stand together
            self.places = [self._read(own, *side) for own, side in zip(self.places, self.sides, strict=True)]
        self.alive = [set(range(len(own))) for own in self.places]
        self.scores = [{} for _ in self.places]
        self.left[self.kind] = self.alive

    def _read(self, places, height, width):
        vision = self.config.vision_config
        side = vision.window_size // vision.patch_size // vision.spatial_merge_size
        order = sorted(range(height * width), key=lambda t: (t // width // side, t % width // side, t))
        found = [None] * len(order)
        for place, token in zip(places, order, strict=True):
            found[token] = place
        return found

    def _numbers(self, states, picture, token):
        """The mean over a token's patches of `states` `[places, ...]`, as a list of numbers."""
        return states[self.places[picture][token]].detach().double().mean(0).flatten().tolist()

    def _pixelprune(self, index, flat):
        if index or self.kind == "video":
            return
        config = self.config.vision_config
        patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
        block = round(self.block**0.5)
        for number, (height, width) in enumerate(self.sides):
            if self.pixels.ndim == 2 or self.pixels.shape[-1] == patch:  # a patch per row
                frames = getattr(config, "temporal_patch_size", 1) if self.pixels.ndim == 2 else 1
                rows = self.pixels.double().reshape(sum(map(len, self.given)) * self.block, -1, frames, patch * patch)
                rows = rows[torch.tensor(self.given[number])][:, :, :, 0]  # the first of the frames that it spans
                tokens = (rows * self.strategy.deviation).flatten(1).tolist()
            else:
                size = block * patch
                image = self.pixels[number].double() * self.strategy.deviation
                tokens = [
                    image[:, size * i : size * i + size, size * j : size * j + size].flatten().tolist()
                    for i in range(height)
                    for j in range(width)
                ]
            kept = plain_pixelprune(tokens, height, width, self.strategy.tolerance, self.strategy.anchored)
            self.alive[number].clear()
            self.alive[number].update(kept)

    def _flowcut(self, index, flat):
        if not 1 <= index <= self.made:
            return
        q, k, v = (x.detach().double() for x in self.parts)
        for number, own in enumerate(self.places):
            alive = sorted(self.alive[number])
            start = min(min(places) for places in own) - 1
            seen = [start, *(place for token in alive for place in own[token])]
            weights = (torch.einsum("hd,khd->hk", q[start], k[seen]) * q.shape[-1] ** -0.5).softmax(-1).mean(0)
            attention = torch.zeros(len(q), dtype=weights.dtype)
            attention[seen] = weights
            values = [[self._numbers(v[:, h], number, token) for token in alive] for h in range(v.shape[1])]
            towards = [self._numbers(attention, number, token)[0] for token in alive]
            score = plain_flow(towards, values, v[start].tolist())
            known = self.scores[number]
            for token, new in zip(alive, score, strict=True):
                known[token] = (known[token] + new) / 2 if token in known else new
            keep, total = self.strategy.keep, len(own)
            budget = min(total, keep) if isinstance(keep, int) else max(1, round(total * keep))
            leave = plain_cut(towards, budget, index - 1, self.made)
            ranked = sorted(alive, key=lambda token: (-known[token], token))
            self.alive[number].difference_update(ranked[len(ranked) - leave :])

    def _mustdrop(self, index, flat):
        if index != 1:
            return None
        for number, (height, width) in enumerate(self.sides):
            hidden = [self._numbers(flat, number, token) for token in range(height * width)]
            for window in plain_windows(hidden, height, width, self.strategy.window, self.strategy.flat):
                mean = sum(flat[self.places[number][token]] for token in window) / len(window)
                flat = flat.index_put((torch.tensor(self.places[number][window[-1]]),), mean)
                self.alive[number].difference_update(window[:-1])
        return flat
