"""A read-only look at vLLM's vision tower while it runs, told to the core as one run of a tower."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from seeless.core.capture import Call
from seeless.core.family import Family
from seeless.core.images import Image, Side
from seeless.core.relevance import load_tokenizer
from seeless.core.tower_attention import AttentionTap
from seeless.core.tower_looks import Looks
from seeless.core.vision import VisionTap
from seeless.families import family_of
from seeless.strategy import Strategy
from seeless.tower import Look, Tower, TowerSignal

NOTHING = Tower(0, -1, (), (), False)  # what is known of a tower that is not read


@dataclass(frozen=True)
class TowerView:
    """What the core asks of a model when it reads a run of its tower.

    Args:
        config: of the model, as `transformers` has it.
        words: the decoder's embeddings, of whom questions about text are asked.
    """

    config: Any
    words: "Words | None" = field(default=None, repr=False)
    packed: dict = field(default_factory=dict, repr=False)

    @property
    def family(self) -> Family:
        return family_of(self.config.model_type)

    @property
    def has_class_token(self) -> bool:
        return self.config.vision_config.model_type in self.family.class_token_towers

    def tower(self, kind: str) -> Any:
        """A tower without the pooling head, which vLLM does not build."""
        return None

    def tapped_layers(self, kind: str) -> list[int]:
        """`vision_feature_layer`, one number for every layer whose output the projector takes."""
        chosen = getattr(self.config, "vision_feature_layer", -1)
        return [chosen] if isinstance(chosen, int) else list(chosen)

    @property
    def base(self) -> "TowerView":
        """Whom the core asks for the table below."""
        return self

    def get_input_embeddings(self) -> "Words":
        """The decoder's table of embeddings."""
        assert self.words is not None
        return self.words

    @property
    def tokenizer(self) -> Any:
        """The model's own."""
        undone, instead = "the text cannot be turned into tokens", "serve a checkpoint with its tokenizer"
        return load_tokenizer(self.config._name_or_path, undone, instead)


class Words:
    """The embeddings of a decoder of vLLM, as one table.

    Args:
        decoder: with its `embed_input_ids`.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    @property
    def weight(self) -> torch.Tensor:
        """Some weight, where the table is."""
        return next(self.decoder.parameters())

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return self.decoder.embed_input_ids(ids.to(self.weight.device))


@dataclass(frozen=True)
class Parts:
    """Where in a model of vLLM the modules are whose inputs and outputs are read.

    Args:
        layers, attention: of the tower, as far as vLLM builds them, and the `MMEncoderAttention` of each.
        made: number of the layer that made the features the projector takes.
        projector: what the features go into.
        whole: whether every rank has all heads.
    """

    layers: Sequence[nn.Module]
    attention: Sequence[nn.Module]
    made: int
    projector: nn.Module
    whole: bool

    def described(self, view: TowerView) -> Tower:
        """What a strategy is told of the tower."""
        every = tuple(range(len(self.layers)))
        windows = view.family.windows
        whole = tuple(sorted(view.config.vision_config.fullatt_block_indexes)) if windows else every
        return Tower(len(every), self.made, whole, every, view.has_class_token)


@dataclass
class Run:
    """One run of the tower, while it is watched."""

    tap: VisionTap

    def over(
        self,
        images: Sequence[Image],
        patches: Sequence[Side],
        grids: np.ndarray | None,
        given: Sequence[torch.Tensor],
    ) -> VisionTap:
        """What it showed.

        Args:
            images: its pictures as they enter the decoder, numbered through the run.
            patches: (height, width) of every picture's patches in the tower.
            grids: `[images, 3]`, where the model is given them.
            given: what enters the decoder for each of `images`, `[tokens, dim]`.
        """
        tap = self.tap
        tap.patches, tap.tokens, tap.grids = tuple(patches), images[0].sides, grids
        tap.given = list(given)
        tap.describe(list(images))
        return tap


class Watch:
    """Notes what a tower hands to its attention and its projector while it runs; nothing without `parts`."""

    def __init__(self, view: TowerView, parts: Parts | None, strategy: Strategy) -> None:
        self.view, self.parts, self.declared = view, parts, type(strategy).tower
        self.tap: VisionTap | None = None
        self.tower = NOTHING if parts is None else parts.described(view)
        if parts is None:
            self.looks: frozenset[Look] = frozenset()
            return
        self.looks = frozenset(strategy.looks_into(self.tower))
        for look in self.looks:
            self.tower.check(look)
        for layer, module in enumerate(parts.attention):
            module.register_forward_pre_hook(partial(self._attention, layer), with_kwargs=True)
        for layer, module in enumerate(parts.layers):
            module.register_forward_hook(partial(self._output, layer))
        parts.projector.register_forward_pre_hook(self._projected)

    @contextmanager
    def run(self) -> Iterator[Run]:
        """Watch a run of the tower."""
        tower, parts = self.tower, self.parts
        tap = VisionTap(self.view, Looks(tower, self.looks), self._reads)  # type: ignore[arg-type]
        if parts is not None:
            if tap.may_read("attention", "keys", "reader_attention", "reader_keys"):
                tap.made = AttentionTap(parts.made, tower.class_token)
            if tap.may_read("reader_attention", "reader_keys") and parts.made + 1 < tower.layers:
                tap.reader = AttentionTap(parts.made + 1, tower.class_token)
            tap.looks.open_taps([own for own in (tap.made, tap.reader) if own is not None])
        self.tap = tap
        try:
            yield Run(tap)
        finally:
            self.tap = None

    @property
    def _reads(self) -> frozenset[TowerSignal] | None:
        return None if self.declared is None else frozenset(self.declared)

    def _taps(self, layer: int) -> list[AttentionTap]:
        """Who wants to know what the attention of a layer is given, each once."""
        assert self.tap is not None
        known = [own for own in (self.tap.made, self.tap.reader) if own is not None]
        known += self.tap.looks.taps.values()
        return list({id(own): own for own in known if own.layer == layer}.values())

    def _attention(self, layer: int, module: Any, args: tuple, kwargs: dict) -> None:
        if self.tap is None or not (taps := self._taps(layer)):
            return
        given = {**dict(zip(("query", "key", "value", "cu_seqlens"), args, strict=False)), **kwargs}
        query, key = (self._heads(module, given[name]) for name in ("query", "key"))
        for tap in taps:
            tap.see(Call(module, "vllm", query, key, module.scale, None, None, given.get("cu_seqlens")))

    def _heads(self, module: Any, states: torch.Tensor) -> torch.Tensor:
        """`[batch, heads, patches, dim]`, the heads of all ranks."""
        states = states.unflatten(-1, (-1, module.head_size)) if states.ndim == 3 else states
        states = states.transpose(1, 2)
        return states if self.parts is None or self.parts.whole else all_heads(states)

    def _output(self, layer: int, module: nn.Module, args: tuple, output: Any) -> None:
        if (tap := self.tap) is None:
            return
        hidden = output[0] if isinstance(output, tuple) else output
        if layer == self.tower.made and self.tower.class_token and tap.may_read("class_token"):
            tap.class_token = hidden[:, 0].clone()
        pooling = layer == self.tower.made and tap.may_read("pooling")
        if pooling or ("hidden", layer) in self.looks:
            tap.looks.see(layer, module, args, {}, hidden.clone())

    def _projected(self, module: nn.Module, args: tuple) -> None:
        if self.tap is not None and self.view.family.projected and self.tap.may_read("features", "class_token"):
            self.tap.projected, self.tap.width = args[0], args[0].shape[-1]


def all_heads(states: torch.Tensor) -> torch.Tensor:
    """The heads `[batch, heads, patches, dim]` of all ranks of tensor parallelism, on each of them."""
    from vllm.distributed import get_tensor_model_parallel_world_size, tensor_model_parallel_all_gather

    if get_tensor_model_parallel_world_size() == 1:
        return states
    return tensor_model_parallel_all_gather(states.contiguous(), dim=1)
