"""PaddleOCR-VL: pages of any size, patches in the order of the picture, four of them to a token."""

from seeless.core.family import Family

FAMILY = Family(
    title="PaddleOCR-VL",
    model_types=("paddleocr_vl",),
    tower="visual",
    projector="projector",
    merge="vision_config.spatial_merge_size",
    projected=False,
    grids={"image": "image_grid_thw"},
    mrope=True,
)
