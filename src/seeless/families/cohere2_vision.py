"""Command A Vision: Aya Vision with a line break after every tile."""

from dataclasses import replace

from seeless.families.aya_vision import FAMILY as AYA_VISION

FAMILY = replace(AYA_VISION, title="Command A Vision", model_types=("cohere2_vision",), crops="opened")
