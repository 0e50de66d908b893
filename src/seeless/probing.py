"""A `Context` of made-up numbers on a model's skeleton: which strategies the model refuses, without a forward."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from seeless.context import Context
from seeless.core.answers import NO_NULL_TOKEN
from seeless.core.family import ModelView
from seeless.core.pooling_head import check_pooling
from seeless.core.relevance import check_clip
from seeless.core.sizes import dimensions
from seeless.core.tower_answers import NO_PATCH_SHOWN
from seeless.core.tower_looks import describe_tower
from seeless.errors import UnsupportedModel
from seeless.strategy import Strategy
from seeless.tower import Tower

PROBE_TEXT = 8
WHOLE_NUMBERS = ("places", "patch", "frame", "tower_groups")
OF_A_LAYER = ("attention", "visible", "keys", "rope_bias")  # of the decoder
OF_LAYERS = ("vision_attention", "vision_hidden", "pooling_attention", "pooled")  # of the tower
SHOWN_BY_PATCHES = ("crop_attention", "vision_features", "vision_keys", *OF_LAYERS)
OF_THE_TOWER = (
    *("crop_attention", "vision_keys", "reader_attention", "reader_keys"),
    *("tower_groups", "tower_stays", *OF_LAYERS),
)
DEFAULTS = {"queries": "last", "tokens": "visual", "onto": "visual"}
IN_CLIP_SPACE = ("text_similarity", "clip_patches", "clip_text", "clip_tokens")
PROBE_CLIP = 16
PROBE_QUESTION = "what is in the picture ?"


class Probe:
    """Answers every question of a `Context` with random numbers, and refuses what the model does not have."""

    def __init__(self, view: ModelView, tokens: int, strategy: Strategy) -> None:
        size = dimensions(view)
        self.view, self.generator = view, torch.Generator().manual_seed(0)
        # The packer puts newlines between the tiles of every image.
        self.newlines = view.family.packer is not None and strategy.scope in ("row", "image") and not strategy.tower
        self.axes = {"visual": tokens, "text": PROBE_TEXT, "seq": tokens + PROBE_TEXT, "one": 1, "dim": size.hidden}
        self.axes |= {"heads": size.heads, "kv_heads": size.kv_heads, "head_dim": size.head_dim}
        heads = view.tower_heads if view.family.tower_layers else 1
        self.axes |= {"tower_heads": heads, "tower_dim": size.tower_hidden or size.hidden}
        self.axes |= {"clip_dim": PROBE_CLIP, "segments": 1}
        self.axes["tower_head_dim"] = self.axes["tower_dim"] // heads

    def __getattr__(self, name: str) -> Callable[..., torch.Tensor | None]:
        described: Any = getattr(Context, name)
        question = getattr(described, "fget", None) or getattr(described, "func", described)
        parameters = inspect.signature(question)

        def answer(*args: Any, **kwargs: Any) -> torch.Tensor | None:
            given = parameters.bind(self, *args, **kwargs)
            given.apply_defaults()
            return self._answer(name, question.axes, given.arguments)

        return answer

    def question(self, text: str | None) -> str:
        return text or PROBE_QUESTION

    def in_clip_space(self, clip: str | None) -> bool:
        return check_clip(self.view, clip) is not None

    def tower(self) -> Tower:
        return describe_tower(self.view, "image")

    def _answer(self, name: str, axes: tuple[str, ...], given: dict[str, Any]) -> torch.Tensor | None:
        queries, tokens, onto = (given.get(key, other) for key, other in DEFAULTS.items())
        if name in SHOWN_BY_PATCHES and self.newlines:
            raise UnsupportedModel(NO_PATCH_SHOWN)
        if name in OF_THE_TOWER and not self.view.family.tower_layers:
            raise self.view.refuse_unread()
        if isinstance(queries, str) and queries == "anchor" and self.view.family.prefix:
            raise UnsupportedModel(NO_NULL_TOKEN)
        for layer in [given["layer"]] if name in OF_A_LAYER else given.get("layers", ()):
            if layer >= 0:
                self.view.attention_layer(layer)
        if name in ("pooling_attention", "pooled"):
            check_pooling(self.view, given["siglip"])
        if name in IN_CLIP_SPACE:
            check_clip(self.view, given["clip"])
        if name == "class_token" and not self._takes_class_tokens():
            return None
        if name == "token_ids":
            return torch.arange(PROBE_TEXT)[None]
        if name == "tower_stays":
            return torch.ones(1, self.axes["visual"], dtype=torch.bool)
        if name in WHOLE_NUMBERS:
            return (
                torch.full((1, self.axes["visual"]), -1) if name == "frame" else torch.arange(self.axes["visual"])[None]
            )
        asking = len(queries) if isinstance(queries, torch.Tensor) else PROBE_TEXT if queries == "text" else 1
        more = {"queries": 1 if given.get("average") else asking, "layers": len(given.get("layers", ()))}
        sizes = {**self.axes, **more, "tokens": self.axes[tokens], "onto": self.axes["seq" if onto == "row" else onto]}
        return torch.rand(1, *(sizes[axis] for axis in axes), generator=self.generator)

    def _takes_class_tokens(self) -> bool:
        return self.view.has_class_token and self.view.merge is None and self.view.family.projected
