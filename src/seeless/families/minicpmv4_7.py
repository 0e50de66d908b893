"""MiniCPM-V 4.7: 4.6 with positions on a canvas, of three axes."""

from dataclasses import replace

from seeless.families.minicpmv4_6 import FAMILY as MINICPMV4_6

FAMILY = replace(MINICPMV4_6, title="MiniCPM-V 4.7", model_types=("minicpmv4_7",), mrope=True, canvas=True)
