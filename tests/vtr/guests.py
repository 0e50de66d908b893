"""Strategies as people bring them: written for PriorTR's framework, only the import line is another."""

from dataclasses import dataclass

import torch

from seeless.vtr import (
    FastVStrategy,
    PriorTRStrategy,
    PruningStrategy,
    VTRConfig,
    VTRStrategy,
    register_strategy,
)


@register_strategy("mymethod")
class MyStrategy(PruningStrategy):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        img_start, img_end = image_token_range
        return attention[:, :, -1, img_start:img_end].mean(dim=1).squeeze(0)


@register_strategy("router")
class RouterStrategy(PruningStrategy):
    def __init__(self):
        self.by_layer = {
            2: PriorTRStrategy(),
            6: FastVStrategy(),
        }  # ctx["layer_idx"] is the layer whose attention is read

    def compute_scores(self, attention, image_token_range, config, **ctx):
        return self.by_layer[ctx["layer_idx"]].compute_scores(attention, image_token_range, config, **ctx)


@register_strategy("shallow_router")
class ShallowRouterStrategy(RouterStrategy):
    """The router for models of six layers."""

    def __init__(self):
        self.by_layer = {1: PriorTRStrategy(), 3: FastVStrategy()}


@register_strategy("cached")
class CachedStrategy(PruningStrategy):
    """Blends in what it thought of the tokens at the cut before."""

    def compute_scores(self, attention, image_token_range, config, **ctx):
        start, end = image_token_range
        scores = attention[:, :, end:, start:end].mean(dim=2).mean(dim=1).squeeze(0)
        scores = scores / scores.sum()
        if "before" in ctx["cache"]:
            scores = scores + ctx["cache"]["before"]
        self.cache = ctx["cache"]
        self.scores = scores
        return scores

    def select_tokens(self, scores, num_tokens, config):
        kept = super().select_tokens(scores, num_tokens, config)
        self.cache["before"] = self.scores[kept]
        return kept


@register_strategy("hidden")
class HiddenStrategy(PruningStrategy):
    """How far each visual token is from the last one of the prompt."""

    def compute_scores(self, attention, image_token_range, config, **ctx):
        start, end = image_token_range
        hidden = ctx["hidden_states"][0]
        assert hidden.shape[0] == attention.shape[-1]
        return (hidden[start:end] - hidden[-1]).norm(dim=-1)


@register_strategy("difference")
class DifferenceStrategy(PriorTRStrategy):
    """PriorTR with a difference in place of its formula."""

    def _correct(self, posterior, prior):
        return posterior.float() / posterior.sum() - prior.float() / prior.sum()


@dataclass
class TemperedConfig(VTRConfig):
    my_temperature: float = 1.0


@register_strategy("tempered")
class TemperedStrategy(PruningStrategy):
    config_class = TemperedConfig

    def compute_scores(self, attention, image_token_range, config, **ctx):
        return (self._aggregate_attention(attention, image_token_range, config) / config.my_temperature).softmax(-1)


@register_strategy("merging")
class MergingStrategy(VTRStrategy):
    """For Qwen: the mean of every three dropped tokens, in order, comes back after the visual ones."""

    def prepare(self, hidden_states, config, context):
        end = context["image_token_range"][1]
        context["query"] = hidden_states[:, end:].mean(dim=1)

    def compute_scores(self, attention, image_token_range, config, layer_idx=0, **context):
        start, end = image_token_range
        scores = attention[0, :, end - 1 :, start:end].mean(dim=(0, 1))
        alike = context["hidden_states"][:, start:end] @ context["query"].mT
        return scores + 1e-3 * (1 + layer_idx) * alike[0, :, 0]

    def post_prune(
        self,
        hidden_states,
        pruned_hidden_states,
        keep_indices,
        image_token_range,
        config,
        layer_idx,
        pruned_token_scores,
        **context,
    ):
        start, img_end = image_token_range
        count = len(keep_indices) + len(pruned_token_scores)
        dropped = sorted(set(range(count)) - set(keep_indices.tolist()))
        groups = [dropped[i : i + 3] for i in range(0, len(dropped), 3)][: 2 + layer_idx]
        new = torch.stack([hidden_states[0, [start + i for i in group]].mean(0) for group in groups])
        return torch.cat([pruned_hidden_states[:, :img_end], new[None], pruned_hidden_states[:, img_end:]], dim=1)


@register_strategy("plain")
class PlainStrategy:
    """No base class, no keywords it does not use."""

    def compute_scores(self, attention, image_token_range, config):
        start, end = image_token_range
        return attention.mean(dim=1)[0, end:, start:end].amax(dim=0)
