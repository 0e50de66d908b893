"""The contract matrix: strategies under contract, tiny models with their prompts, and the pairs that cannot work."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_clip import save_clip

import seeless as sl
from seeless.core.host import CACHE
from tinies import IMAGE, RAGGED, RAGGED_VIDEO, TINIES, VIDEO, make_pieces

_folder = tempfile.TemporaryDirectory()  # until the process ends
CLIP = save_clip(_folder.name)

STRATEGIES = {
    "random": sl.Random(keep=0.5),
    "uniform": sl.Uniform(keep=0.3),
    "pool": sl.Pool(keep=5),
    "fastv": sl.FastV(keep=0.5),
    "priortr": sl.PriorTR(keep=0.4),
    "pyramiddrop": sl.PyramidDrop(),
    "fastervlm": sl.FasterVLM(keep=5),
    "vispruner": sl.VisPruner(keep=0.4),
    "clse": sl.CLSE(keep=0.4),
    "divprune": sl.DivPrune(keep=0.4),
    "dart": sl.Dart(keep=0.7),
    "holov": sl.HoloV(keep=0.4, chunks=5),
    "sparsevlm": sl.SparseVLM(keep=[0.6, 0.4, 0.2]),
    "evs": sl.EVS(keep=0.7),
    "vidcom2": sl.VidCom2(keep=0.4),
    "priortr_2f": sl.PriorTR2F(keep=0.4),
    "router": sl.Router({2: sl.FastV(keep=0.5), 4: sl.PyramidDrop(keep=0.3, layer=4)}),
    "tome": sl.ToMe(keep=0.6),
    "visionzip": sl.VisionZip(keep=7, contextual_share=0.3),
    "cdpruner": sl.CDPruner(keep=0.4, clip=CLIP, question="how many digit are there ?"),
    "prumerge": sl.PruMerge(keep=5, neighbours=3),
    "prumerge_plus": sl.PruMergePlus(keep=0.6, neighbours=4),
    "dycoke": sl.DyCoke(drop=0.6),
    "flashvid": sl.FlashVID(keep=0.3, segments=2),
    "holitom": sl.HoliTom(keep=0.4),
    "fastvid": sl.FastVID(keep=0.4, segments=2, step=2),
    "prunevid": sl.PruneVid(similarity=0.6),
    "scope": sl.SCOPE(keep=0.4),
    "tops": sl.TOPS(keep=[0.6, 0.4, 0.2], layer=[0, 2, 4]),
    "hiprune": sl.HiPrune(keep=0.5, alpha=0.8),
    "vscan": sl.VScan(keep=0.4, layer=3),
    "mmtok": sl.MMTok(keep=0.4, question="how many digit are there ?"),
    "anchorprune": sl.AnchorPrune(keep=0.4, clip=CLIP, question="how many digit are there ?"),
    "eadp": sl.EADP(keep=0.4, clip=CLIP, question="how many digit are there ?"),
    "prunesid": sl.PruneSID(keep=0.5),
    "flowcut": sl.FlowCut(keep=0.5),
    "mustdrop": sl.MustDrop(window=2, flat=-1.0, total=0.05, largest=0.05),
    "pixelprune": sl.PixelPrune(tolerance=0.9, deviation=0.2),
}
EVERYTHING = {
    "random": sl.Random(keep=1.0),
    "uniform": sl.Uniform(keep=1.0, layer=2),
    "pool": sl.Pool(keep=1.0),
    "fastv": sl.FastV(keep=1.0),
    "priortr": sl.PriorTR(keep=1.0),
    "pyramiddrop": sl.PyramidDrop(keep=[1.0, 1.0, 1.0]),
    "fastervlm": sl.FasterVLM(keep=1.0),
    "vispruner": sl.VisPruner(keep=1.0),
    "clse": sl.CLSE(keep=1.0),
    "divprune": sl.DivPrune(keep=1.0),
    "dart": sl.Dart(keep=1.0),
    "holov": sl.HoloV(keep=1.0),
    "sparsevlm": sl.SparseVLM(keep=1.0),
    "evs": sl.EVS(keep=1.0),
    "vidcom2": sl.VidCom2(keep=1.0),
    "priortr_2f": sl.PriorTR2F(keep=1.0),
    "router": sl.Router({2: sl.FastV(keep=1.0), 4: sl.PriorTR(keep=1.0)}),
    "tome": sl.ToMe(keep=1.0),
    "visionzip": sl.VisionZip(keep=1.0),
    "cdpruner": sl.CDPruner(keep=1.0),
    "prumerge": sl.PruMerge(keep=1.0),
    "prumerge_plus": sl.PruMergePlus(keep=1.0),
    "dycoke": sl.DyCoke(keep=1.0),
    "flashvid": sl.FlashVID(keep=1.0),
    "holitom": sl.HoliTom(keep=1.0),
    "fastvid": sl.FastVID(keep=1.0),
    "prunevid": sl.PruneVid(keep=1.0),
    "scope": sl.SCOPE(keep=1.0),
    "tops": sl.TOPS(keep=1.0),
    "hiprune": sl.HiPrune(keep=1.0),
    "vscan": sl.VScan(keep=1.0),
    "mmtok": sl.MMTok(keep=1.0),
    "anchorprune": sl.AnchorPrune(keep=1.0),
    "eadp": sl.EADP(keep=1.0),
    "prunesid": sl.PruneSID(keep=1.0),
    "flowcut": sl.FlowCut(keep=1.0),
    "mustdrop": sl.MustDrop(flat=2.0, total=0.0, newlines=True),
    "pixelprune": sl.PixelPrune(newlines=True),
}
NULL_TOKEN = ("priortr", "priortr_2f")  # read the first token after the image
LEAVES_STILLS_ALONE = ("dycoke", "evs")
MERGED_FRAMES = ("ernie4_5_vl_moe", "kimi_k25")
ONE_FRAME = ("kimi_k25",)  # the tiny makes one of a whole video
LEAVES_THE_TOWER = ("flowcut", "mustdrop", "pixelprune")
INSIDE = (*LEAVES_THE_TOWER, "tome")  # the tower
READ_THE_TOWER = (  # its attention
    *LEAVES_THE_TOWER,
    *("fastervlm", "fastvid", "flashvid", "holitom", "holov", "prumerge", "prumerge_plus"),
    *("scope", "tome", "visionzip", "vispruner"),
    *("tops", "hiprune", "vscan", "mmtok", "anchorprune", "prunesid"),
)
BY_CLIP = ("cdpruner", "anchorprune", "eadp")
FINDS_ITS_COUNT = (  # in what the pictures show
    *("fastvid", "flashvid", "holitom", "prunevid", "mustdrop", "pixelprune", "vscan"),
)
NEEDS_TEXT = (*NULL_TOKEN, "mustdrop", "sparsevlm", "prunevid", "tops")  # after the last image
READS_THE_FIRST_LAYER = ("clse", "mustdrop", "sparsevlm")  # with their own layers
REACH_LATE_LAYERS = ("pyramiddrop", "clse", "router", "flashvid", "holitom", "tops")
FIRST_LAYER_RECURRENT = ("qwen3_5", "lfm", "minicpm")  # beginnings of names
FLOORED = (
    *("priortr", "pyramiddrop", "clse", "dart", "holov", "sparsevlm", "evs", "vidcom2", "priortr_2f"),
    *("scope", "tops", "mmtok", "anchorprune", "eadp", "prunesid"),
)
CUT_AFTER_THE_TOWER = ("llava_next", "llava_onevision")  # beginnings of names: padding of tiles leaves, or shrinks
CASES = [(tiny, kind) for tiny in TINIES for kind in tiny.kinds]
PLACEHOLDERS = [IMAGE, VIDEO]
NEW_TOKENS = 4  # the first from the prefill, one from its cache, two from what decoding added to that
CLIP_TOWERS = ("llava-llama", "llava-mistral", "llava-qwen2", "llava_next", "video_llava", "vipllava")
CLASS_TOKENS = (*CLIP_TOWERS, "internvl")
# What the stock models of releases before 5.24 fail in, without a handle.
OLDER = CACHE == "past_key_values"
NO_LATER_TURN = ("ernie4_5_vl_moe",) if OLDER else ()  # types of experts come for tokens that are cached, too
WRONG_IN_TRAINING = (("gemma4-small", "reentrant"),) if OLDER else ()  # gradients of the tower
EVERY_CROP_AN_IMAGE = (
    *("smolvlm", "idefics3", "gemma3", "aya_vision", "cohere2_vision"),
    *("lfm2_vl", "minicpmv4_6", "minicpmv4_7"),
)


def case_id(case):
    return "-".join(map(str, case)) if isinstance(case, tuple) else str(case)


def rows_of(kind):
    return RAGGED_VIDEO if kind == "video" else RAGGED


def gap(tiny, name, backend, kind="image"):
    """Why a pair cannot work on stills, or on videos: a piece of the sentence it is refused with; None if it must."""
    if name in INSIDE and kind == "video" and tiny.name in MERGED_FRAMES:
        return "makes one of several frames of a video"
    if name in INSIDE and (reason := gap_inside(tiny, name)) is not None:
        return reason
    if name in READS_THE_FIRST_LAYER and tiny.name.startswith(FIRST_LAYER_RECURRENT):
        return "the first layer with attention"
    if name in NULL_TOKEN and tiny.name.startswith("paligemma"):
        return "blind to the question"
    if tiny.unread and name in READ_THE_TOWER:
        return "shows no attention that could be read"
    if name in BY_CLIP and not tiny.name.startswith(CLIP_TOWERS):
        return "is no CLIP"
    if tiny.name == "vipllava" and name in ("tome", *BY_CLIP):  # several layers of the tower, side by side
        return "takes the outputs of several tower layers"
    if tiny.name == "gemma4-small" and name in REACH_LATE_LAYERS:
        return "take keys and values of earlier ones"
    if backend == "fused" and (tiny.name in ("gemma4", "molmo2") or tiny.name.startswith(("gemma3", "paligemma"))):
        return "see each other both ways"
    return None


def gap_inside(tiny, name):
    """As `gap`, for what acting inside the tower asks of it."""
    if tiny.unread:
        return "shows no attention that could be read"
    if tiny.name == "granite4_vision":
        return "whole windows of their patches"
    if tiny.name == "lfm2_vl":
        return "filled up to equally many patches"
    if tiny.name.startswith("minicpm"):
        return "makes one patch of four by itself"
    if tiny.name == "lfm3_vl":
        return "convolve over the grid of patches"
    if tiny.name.startswith("gemma4"):
        return "padding behind them in the tower"
    if name in LEAVES_THE_TOWER and tiny.name == "llava_onevision":
        return "resampled after the tower"
    if name == "flowcut" and not tiny.name.startswith(CLASS_TOKENS):
        return "the class token makes of them"
    return None


def grids(model, tiny, rows, input_ids):
    """Per row of a batch, `(columns, height, width)` of every crop."""
    found = []
    for row, ids in zip(rows, input_ids, strict=True):
        columns = ((ids == IMAGE) | (ids == VIDEO)).nonzero()[:, 0].tolist()
        own, used = [], 0
        for piece in make_pieces(model, tiny, row):
            own += [([columns[used + place] for place in places], h, w) for places, h, w in piece.crops]
            used += piece.tokens
        found.append(own)
    return found
