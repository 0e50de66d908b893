"""What PriorTR's five copies of its framework do differently, by backbone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Backbone:
    """The ways of one copy.

    Args:
        name: of the backbone.
        strategy: the default one.
        prune_layer, keep_ratio: the defaults.
        keep_tokens: filled in where no budget is given, None if the copy fills in none.
        query: the default query aggregation, "auto" where it depends on the strategy.
        null_row: distance of the null token from the first token after the image.
        last_row: whether "question" includes the last row.
        fastv_sum: whether FastV adds the question's rows up instead of averaging them (and includes the last).
        least: tokens that stay whatever the ratio says.
        keeps_all_for_none: whether a strategy that keeps nothing keeps everything.
        blind: whether tokens after the image cannot have seen the question, so that there is a null token.
        released_rows: whether its released code, run with sdpa, lets score rows see later tokens.
    """

    name: str
    strategy: str = "priortr"
    prune_layer: int = 3
    keep_ratio: float = 0.25
    keep_tokens: int | None = None
    query: str = "question"
    null_row: int = 0
    last_row: bool = True
    fastv_sum: bool = True
    least: int = 0
    keeps_all_for_none: bool = False
    blind: bool = True
    released_rows: bool = False


_QWEN = {
    "keep_ratio": 0.1111,
    "query": "auto",
    "last_row": False,
    "fastv_sum": False,
    "least": 1,
    "released_rows": True,
}
LLAVA = Backbone("llava", keep_tokens=192)
LLAVA_NEXT = Backbone("llava_next", keep_tokens=320, query="last")
INTERNVL = Backbone("internvl", prune_layer=2, null_row=1)
QWEN2 = Backbone("qwen2", keeps_all_for_none=True, **_QWEN)  # type: ignore[arg-type]
QWEN3 = Backbone("qwen3", **_QWEN)  # type: ignore[arg-type]
VIDEO_LLAVA = Backbone("video_llava", strategy="fastv", prune_layer=16, query="last")
PALIGEMMA = Backbone("paligemma", blind=False)
OTHER = Backbone("other")

BACKBONES = {
    "llava": LLAVA,
    "llava_next": LLAVA_NEXT,
    "internvl": INTERNVL,
    "qwen2_vl": QWEN2,
    "qwen2_5_vl": QWEN2,
    "qwen3_vl": QWEN3,
    "qwen3_vl_moe": QWEN3,
    "video_llava": VIDEO_LLAVA,
    "paligemma": PALIGEMMA,
}


def backbone_of(model_type: str) -> Backbone:
    """The ways of the copy made for a model type; those of LLaVA, without its budget, where there is none."""
    return BACKBONES.get(model_type, OTHER)
