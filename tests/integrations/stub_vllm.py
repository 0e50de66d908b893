"""As much of vLLM as its doors need: names and shapes of version 0.32, without a line of what is behind them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


@dataclass
class PromptUpdateDetails:
    full: list[int]
    is_embed: Callable | None = None

    @staticmethod
    def from_seq(seq):
        return PromptUpdateDetails(seq)

    @staticmethod
    def select_token_id(seq, token):
        return PromptUpdateDetails(seq, lambda full: torch.tensor(full) == token)


@dataclass
class PromptReplacement:
    modality: str
    target: list[int]
    replacement: Any


@dataclass
class FieldConfig:
    modality: str
    keep_on_cpu: bool = False

    @classmethod
    def batched(cls, modality, *, keep_on_cpu=False):
        return cls(modality, keep_on_cpu)


class EmbeddingItems:
    pass


class VerifyAndUpdateConfig:
    @staticmethod
    def verify_and_update_config(vllm_config):
        return

    @staticmethod
    def verify_and_update_model_config(model_config):
        return


class Registry:
    def __init__(self):
        self.models = {}

    def register_model(self, name, where):
        self.models[name] = where

    def inspect_model_cls(self, architectures, model_config):
        return SimpleNamespace(architecture=architectures[0]), architectures[0]


@dataclass
class Config:
    """What `ModelConfig` has of a model; `given` is what stands under "seeless" in its overrides."""

    model_type: str
    architecture: str
    given: Any = None
    mm: Any = field(default_factory=lambda: MultiModal())
    registry: Registry = field(default_factory=Registry)

    def __post_init__(self):
        self.hf_config = SimpleNamespace(model_type=self.model_type, architectures=[self.architecture])
        if self.given is not None:
            self.hf_config.seeless = self.given
        self.multimodal_config = self.mm


@dataclass
class MultiModal:
    mm_processor_kwargs: dict | None = None
    enable_mm_embeds: bool = False
    video_pruning_rate: float | None = None

    def is_multimodal_pruning_enabled(self):
        return bool(self.video_pruning_rate)


def install(monkeypatch) -> SimpleNamespace:
    """Put the stub in the place of vLLM; gives its registry and its table of hooks."""
    registry, hooks = Registry(), {}
    parts = {
        "vllm": {"ModelRegistry": registry},
        "vllm.model_executor": {},
        "vllm.model_executor.models": {},
        "vllm.model_executor.models.config": {
            "MODELS_CONFIG_MAP": hooks,
            "VerifyAndUpdateConfig": VerifyAndUpdateConfig,
        },
        "vllm.multimodal": {},
        "vllm.multimodal.inputs": {"MultiModalFieldConfig": FieldConfig},
        "vllm.multimodal.parse": {"EmbeddingItems": EmbeddingItems, "DictEmbeddingItems": EmbeddingItems},
        "vllm.multimodal.processing": {"PromptUpdateDetails": PromptUpdateDetails},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(registry=registry, hooks=hooks)
