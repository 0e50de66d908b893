"""The door for code written for PriorTR's framework: strategies, configurations and names as they are known there."""

import seeless.vtr.guest  # noqa: F401  (says what `VTRConfig` becomes)
from seeless.vtr.attention import LazyAttention
from seeless.vtr.base import PruningStrategy, VTRStrategy
from seeless.vtr.clse import CLSEStrategy
from seeless.vtr.config import VTRConfig
from seeless.vtr.fastv import FastVStrategy
from seeless.vtr.priortr import PriorTRStrategy
from seeless.vtr.priortr_2f import PriorTR2FStrategy
from seeless.vtr.registry import VTR_REGISTRY, get_strategy, register_strategy
from seeless.vtr.sparsevlm import SparseVLMStrategy
from seeless.vtr.vispruner import VisPrunerStrategy

__all__ = [
    "VTR_REGISTRY",
    "CLSEStrategy",
    "FastVStrategy",
    "LazyAttention",
    "PriorTR2FStrategy",
    "PriorTRStrategy",
    "PruningStrategy",
    "SparseVLMStrategy",
    "VTRConfig",
    "VTRStrategy",
    "VisPrunerStrategy",
    "get_strategy",
    "register_strategy",
]
