"""A row with equal tokens keeps the same ones alone and in a batch: newlines, a picture shown twice, a still video."""

import pytest
import torch
from tiny_clip import save_clip

import seeless as sl
from tinies import TINIES, make_inputs

QUESTION = "how many digit are there ?"
METHODS = {
    "divprune": lambda keep, clip: sl.DivPrune(keep=keep, scope="row"),
    "holov": lambda keep, clip: sl.HoloV(keep=keep, scope="row", chunks=4),
    "fastervlm": lambda keep, clip: sl.FasterVLM(keep=keep, scope="row"),
    "vispruner": lambda keep, clip: sl.VisPruner(keep=keep, scope="row"),
    "cdpruner": lambda keep, clip: sl.CDPruner(keep=keep, scope="row", clip=clip, question=QUESTION),
    "prumerge_plus": lambda keep, clip: sl.PruMergePlus(keep=keep, scope="row"),
    "evs": lambda keep, clip: sl.EVS(keep=keep),
    "vidcom2": lambda keep, clip: sl.VidCom2(keep=keep),
    "dycoke": lambda keep, clip: sl.DyCoke(drop=1 - keep),
    "fastvid": lambda keep, clip: sl.FastVID(keep=keep),
    "flashvid": lambda keep, clip: sl.FlashVID(keep=keep),
    "holitom": lambda keep, clip: sl.HoliTom(keep=keep),
    "prunevid": lambda keep, clip: sl.PruneVid(clusters=keep),
}
STILLS = [[5, "image:0", 4, "image:0", 9], [3, "image:1", 4, "image:2", 6], [14], [2, "image:3", 3, "image:3", 2]]
VIDEOS = [[5, "video:0", 4, "video:0", 9], [3, "video:1", 4, "video:2", 6], [14], [2, "video:3", 3]]
CASES = {"llava-llama-mha": STILLS, "llava_next-llama-mha": STILLS, "internvl": STILLS, "video_llava": VIDEOS}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module", params=CASES)
def model_and_tiny(request):
    tiny = next(tiny for tiny in TINIES if tiny.name == request.param)
    return tiny.build("sdpa"), tiny


def prompts(model, tiny, rows):
    """In which every frame of a video is its first."""
    inputs = make_inputs(model, tiny, rows)
    if "pixel_values_videos" in inputs:
        frames = inputs["pixel_values_videos"]
        inputs["pixel_values_videos"] = frames[:, :1].expand_as(frames).contiguous()
    return inputs


ABOUT_VIDEOS = ("dycoke", "fastvid", "flashvid", "holitom", "prunevid")


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_a_row_keeps_the_same_of_equal_tokens_alone_and_in_a_batch(model_and_tiny, name, clip):
    (model, tiny), rows = model_and_tiny, CASES[str(model_and_tiny[1])]
    if name == "cdpruner" and tiny.name == "internvl":
        pytest.skip("it compares with the question in the space of CLIP, and this tower is no CLIP")
    if name in ABOUT_VIDEOS and rows is STILLS:
        pytest.skip("it is asked about videos")
    together = prompts(model, tiny, rows)
    alone = [prompts(model, tiny, [row]) for row in rows]
    for keep in (0.1, 0.3, 0.45, 0.6, 0.75, 0.9):
        with sl.apply(model, METHODS[name](keep, clip)) as run:
            model(**together)
            want = run.report.stages[0].kept
            for number in (0, 1, 3):
                model(**alone[number])
                assert run.report.stages[0].kept[0].tolist() == want[number].tolist(), (keep, number)
