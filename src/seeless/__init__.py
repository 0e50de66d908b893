"""seeless: vision-language models that look at fewer visual tokens, and answer as well."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seeless.api import Handle, apply
    from seeless.context import Context
    from seeless.core.family import Family
    from seeless.decision import Decision, Keep, Merge
    from seeless.errors import (
        AlreadyApplied,
        BudgetError,
        InputError,
        MissingExtra,
        SeelessError,
        StrategyError,
        UnknownStrategy,
        UnsupportedModel,
    )
    from seeless.families import register_family
    from seeless.patches import PatchContext, PatchStrategy
    from seeless.registry import available, from_dict, get, register
    from seeless.report import Report, StageReport
    from seeless.step import Step, StepReader
    from seeless.strategies.anchorprune import AnchorPrune
    from seeless.strategies.cdpruner import CDPruner
    from seeless.strategies.clse import CLSE
    from seeless.strategies.dart import Dart
    from seeless.strategies.divprune import DivPrune
    from seeless.strategies.dycoke import DyCoke
    from seeless.strategies.eadp import EADP
    from seeless.strategies.evs import EVS
    from seeless.strategies.fastervlm import FasterVLM
    from seeless.strategies.fastv import FastV
    from seeless.strategies.fastvid import FastVID
    from seeless.strategies.flashvid import FlashVID
    from seeless.strategies.flowcut import FlowCut
    from seeless.strategies.hiprune import HiPrune
    from seeless.strategies.holitom import HoliTom
    from seeless.strategies.holov import HoloV
    from seeless.strategies.mmtok import MMTok
    from seeless.strategies.mustdrop import MustDrop
    from seeless.strategies.pixelprune import PixelPrune
    from seeless.strategies.pool import Pool
    from seeless.strategies.priortr import PriorTR
    from seeless.strategies.priortr_2f import PriorTR2F
    from seeless.strategies.prumerge import PruMerge, PruMergePlus
    from seeless.strategies.prunesid import PruneSID
    from seeless.strategies.prunevid import PruneVid
    from seeless.strategies.pyramiddrop import PyramidDrop
    from seeless.strategies.random import Random
    from seeless.strategies.router import Router
    from seeless.strategies.scope import SCOPE
    from seeless.strategies.sparsevlm import SparseVLM
    from seeless.strategies.tome import ToMe
    from seeless.strategies.tops import TOPS
    from seeless.strategies.uniform import Uniform
    from seeless.strategies.vidcom2 import VidCom2
    from seeless.strategies.visionzip import VisionZip
    from seeless.strategies.vispruner import VisPruner
    from seeless.strategies.vscan import VScan
    from seeless.strategy import EntryStrategy, LayerStrategy, Strategy, TowerStrategy
    from seeless.two_stage import TwoStageStrategy
else:  # with them come torch and transformers: seconds that `seeless --help` need not take
    from seeless.lazy import lazily as _lazily

    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "seeless.api": ("Handle", "apply"),
            "seeless.context": ("Context",),
            "seeless.core.family": ("Family",),
            "seeless.decision": ("Decision", "Keep", "Merge"),
            "seeless.errors": (
                "AlreadyApplied",
                "BudgetError",
                "InputError",
                "MissingExtra",
                "SeelessError",
                "StrategyError",
                "UnknownStrategy",
                "UnsupportedModel",
            ),
            "seeless.families": ("register_family",),
            "seeless.patches": ("PatchContext", "PatchStrategy"),
            "seeless.registry": ("available", "from_dict", "get", "register"),
            "seeless.report": ("Report", "StageReport"),
            "seeless.step": ("Step", "StepReader"),
            "seeless.strategies.anchorprune": ("AnchorPrune",),
            "seeless.strategies.cdpruner": ("CDPruner",),
            "seeless.strategies.clse": ("CLSE",),
            "seeless.strategies.dart": ("Dart",),
            "seeless.strategies.divprune": ("DivPrune",),
            "seeless.strategies.dycoke": ("DyCoke",),
            "seeless.strategies.eadp": ("EADP",),
            "seeless.strategies.evs": ("EVS",),
            "seeless.strategies.fastervlm": ("FasterVLM",),
            "seeless.strategies.fastv": ("FastV",),
            "seeless.strategies.fastvid": ("FastVID",),
            "seeless.strategies.flashvid": ("FlashVID",),
            "seeless.strategies.hiprune": ("HiPrune",),
            "seeless.strategies.flowcut": ("FlowCut",),
            "seeless.strategies.holitom": ("HoliTom",),
            "seeless.strategies.holov": ("HoloV",),
            "seeless.strategies.mmtok": ("MMTok",),
            "seeless.strategies.mustdrop": ("MustDrop",),
            "seeless.strategies.pixelprune": ("PixelPrune",),
            "seeless.strategies.pool": ("Pool",),
            "seeless.strategies.priortr": ("PriorTR",),
            "seeless.strategies.priortr_2f": ("PriorTR2F",),
            "seeless.strategies.prumerge": ("PruMerge", "PruMergePlus"),
            "seeless.strategies.prunesid": ("PruneSID",),
            "seeless.strategies.prunevid": ("PruneVid",),
            "seeless.strategies.pyramiddrop": ("PyramidDrop",),
            "seeless.strategies.random": ("Random",),
            "seeless.strategies.router": ("Router",),
            "seeless.strategies.scope": ("SCOPE",),
            "seeless.strategies.sparsevlm": ("SparseVLM",),
            "seeless.strategies.tome": ("ToMe",),
            "seeless.strategies.tops": ("TOPS",),
            "seeless.strategies.uniform": ("Uniform",),
            "seeless.strategies.vidcom2": ("VidCom2",),
            "seeless.strategies.visionzip": ("VisionZip",),
            "seeless.strategies.vispruner": ("VisPruner",),
            "seeless.strategies.vscan": ("VScan",),
            "seeless.strategy": ("EntryStrategy", "LayerStrategy", "Strategy", "TowerStrategy"),
            "seeless.two_stage": ("TwoStageStrategy",),
        },
    )

__all__ = [  # noqa: RUF022 (plain order; ruff takes CLSE and EVS for constants)
    "AlreadyApplied",
    "AnchorPrune",
    "BudgetError",
    "CDPruner",
    "CLSE",
    "Context",
    "Dart",
    "Decision",
    "DivPrune",
    "DyCoke",
    "EADP",
    "EVS",
    "EntryStrategy",
    "Family",
    "FastV",
    "FastVID",
    "FasterVLM",
    "FlashVID",
    "FlowCut",
    "Handle",
    "HiPrune",
    "HoliTom",
    "HoloV",
    "InputError",
    "Keep",
    "LayerStrategy",
    "MMTok",
    "Merge",
    "MissingExtra",
    "MustDrop",
    "PatchContext",
    "PatchStrategy",
    "PixelPrune",
    "Pool",
    "PriorTR",
    "PriorTR2F",
    "PruMerge",
    "PruMergePlus",
    "PruneSID",
    "PruneVid",
    "PyramidDrop",
    "Random",
    "Report",
    "Router",
    "SCOPE",
    "SeelessError",
    "SparseVLM",
    "StageReport",
    "Step",
    "StepReader",
    "Strategy",
    "StrategyError",
    "TOPS",
    "ToMe",
    "TowerStrategy",
    "TwoStageStrategy",
    "Uniform",
    "UnknownStrategy",
    "UnsupportedModel",
    "VScan",
    "VidCom2",
    "VisPruner",
    "VisionZip",
    "apply",
    "available",
    "from_dict",
    "get",
    "register",
    "register_family",
]
__version__ = "0.2.0"
