"""EXAONE 4.5: the tower of Qwen2.5-VL with fewer key heads, on a decoder whose positions have one axis."""

from dataclasses import replace

from seeless.families.qwen2_5_vl import FAMILY as QWEN2_5_VL

FAMILY = replace(QWEN2_5_VL, title="EXAONE 4.5", model_types=("exaone4_5",), mrope=False)
