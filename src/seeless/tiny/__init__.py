"""The embedded model: a small real LLaVA that reads coloured handwritten digits, and the scenes it reads."""

from seeless.tiny.model import load_tiny, tiny_path
from seeless.tiny.scenes import Question, Scene, draw_scene

__all__ = ["Question", "Scene", "draw_scene", "load_tiny", "tiny_path"]
