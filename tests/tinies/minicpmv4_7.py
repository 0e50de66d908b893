"""MiniCPM-V 4.7: as 4.6, with the tokens of a picture and its slices placed on one canvas."""

from transformers import MiniCPMV4_7Config, MiniCPMV4_7ForConditionalGeneration, MiniCPMV4_7VisionConfig

from .base import END, IMAGE, START, VIDEO
from .minicpmv4_6 import END_SLICE, SLICE, MiniCPMV46

LINE = 93


class MiniCPMV47(MiniCPMV46):
    name = "minicpmv4_7"
    model_class = MiniCPMV4_7ForConditionalGeneration
    config_class, vision_class = MiniCPMV4_7Config, MiniCPMV4_7VisionConfig
    new_token_types = {"mm_token_type_ids": 0}
    markers = {
        "image_start_id": START,
        "image_end_id": END,
        "slice_start_id": SLICE,
        "slice_end_id": END_SLICE,
        "newline_id": LINE,
    }

    def marked(self, tokens: list[int], number: int) -> list[int]:
        """With one slice to a line."""
        return ([LINE] if number > 1 else []) + super().marked(tokens, number)

    def collate(self, pieces, ids, mask) -> dict:
        types = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
        return {**super().collate(pieces, ids, mask), "mm_token_type_ids": types}
