"""`seeless run` on the embedded model and on models from disk; what is answered does not matter here."""

import json

import pytest
import torch
from PIL import Image
from saved_models import save_llava, save_llava_next
from transformers import VideoLlavaConfig

from seeless.asking.results import what_is_not_faster
from seeless.pixels import read_video
from seeless.reader import draw_drawing
from seeless.tiny import draw_scene
from video_files import write_videos

QUICK = ("--repeats", 0, "--max-new-tokens", 2)


def run_json(seeless, *arguments) -> dict:
    """What a run prints; of the smallest embedded model unless another is named."""
    model = () if "--model" in arguments else ("--model", "tiny")
    outcome = seeless("run", *QUICK, "--json", *model, *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 1
    return json.loads(outcome.out)


def fields_of(seeless, *arguments) -> dict:
    return run_json(seeless, *arguments)["runs"][1]["fields"]


def test_without_arguments(seeless, tmp_path):
    outcome = seeless("run")
    question = draw_drawing(0).questions[0]
    assert (outcome.code, outcome.err) == (0, "")
    for part in (
        question.text,
        question.answer,
        "fastv 64",
        "GFLOPs",
        " ms",
        "576 -> 192 from layer 2",
        "576 -> 64 from layer 2",
        "seeless-overlay.png",
    ):
        assert part in outcome.out
    with Image.open(tmp_path / "seeless-overlay.png") as overlay:
        assert overlay.height > 2 * overlay.width >= 960  # one budget below the other


def test_json(seeless, tmp_path):
    outcome = seeless("run", "--json", "--model", "tiny", "--repeats", 1, "--max-new-tokens", 2, "--seed", 3)
    assert outcome.err == ""
    data = json.loads(outcome.out)
    question = draw_scene(3).questions[0]
    assert (data["question"], data["right_answer"]) == (question.text, question.answer)
    assert data["images"] == ["held-out scene 3"]
    assert data["overlay"] is None
    assert list(tmp_path.iterdir()) == []
    before, after = data["runs"]
    assert (before["strategy"], before["visual_tokens"], before["report"]) == ("none", 144, None)
    assert (after["strategy"], after["visual_tokens"], after["average_tokens"]) == ("fastv", 36, 63)
    assert before["flops"]["total"] > after["flops"]["total"] > 0
    assert before["kv_bytes"] > after["kv_bytes"] > 0
    for line in data["runs"]:
        assert isinstance(line["answer"], str)
        assert line["right"] == (line["answer"] == question.answer)
        assert line["prefill_seconds"] > 0
        assert line["decode_seconds"] > 0
    assert len(after["report"]["stages"][0]["kept"][0]) == 36


def test_own_pictures_and_question(seeless, tmp_path):
    Image.new("L", (300, 200), 128).save("grey.png")
    Image.new("RGBA", (50, 90)).save("clear.png")
    data = run_json(seeless, "--image", "grey.png", "--image", "clear.png", "--ask", "which digit is red?",
                    "--strategy", "vispruner", "--keep", 9, "--save-overlay", "kept.png")  # fmt: skip
    assert data["images"] == ["grey.png", "clear.png"]
    assert (data["question"], data["right_answer"], data["overlay"]) == ("which digit is red?", None, "kept.png")
    assert data["runs"][0]["right"] is None
    assert [line["visual_tokens"] for line in data["runs"]] == [288, 18]
    with Image.open("kept.png") as overlay:
        assert overlay.width > overlay.height >= 480


def test_words_that_the_model_does_not_know_are_said(seeless):
    told = seeless("run", "--ask", "how many zebras are there?", "--repeats", 0, "--max-new-tokens", 1, "--json").err
    assert told == "the model's vocabulary does not have every word of 'how many zebras are there?'\n"


def test_a_question_about_the_scene_has_a_known_answer(seeless):
    question = draw_scene(0).questions[-1]
    assert run_json(seeless, "--ask", question.text)["right_answer"] == question.answer
    outcome = seeless("run", *QUICK, "--json", "--model", "tiny", "--ask", "where is the cat?")
    assert json.loads(outcome.out)["right_answer"] is None
    assert outcome.err.count("\n") == 1  # the embedded model does not know these words
    assert "vocabulary" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--keep", "64"], {"keep": 64}),
        (["--keep", "1"], {"keep": 1}),
        (["--keep", "1.0"], {"keep": 1.0}),
        (["--keep=.5"], {"keep": 0.5}),
        (["--keep", ".5,.25", "--layer", "2, 4"], {"keep": [0.5, 0.25], "layer": [2, 4]}),
        (["--keep", ".5,", "--layer", "2,"], {"keep": [0.5], "layer": [2]}),
        (["--newlines"], {"newlines": True}),
        (["--no-newlines", "--keep", "9"], {"newlines": False, "keep": 9}),
        (["--newlines", "true"], {"newlines": True}),
        (["--newlines=False"], {"newlines": False}),
        (["--threshold", "-0.5"], {"threshold": -0.5}),
        (["--threshold", "none"], {"threshold": None}),
        (["--strategy", "priortr", "--head-aggregation", "max"], {"head_aggregation": "max", "keep": 0.25}),
        (["--strategy", "priortr", "--head_aggregation", "max"], {"head_aggregation": "max"}),
        (["--strategy", "pyramiddrop"], {"keep": [0.5, 0.25, 0.125], "layer": None}),
        (["--strategy", "pyramiddrop", "--layer", "1,2,3", "--keep", "99,50,9"], {"keep": [99, 50, 9]}),
        (["--strategy", "random", "--random.seed", "5", "--seed", "1"], {"seed": 5}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_are_the_fields(seeless, arguments, expected):
    fields = fields_of(seeless, *arguments)
    for name, value in expected.items():
        assert (fields[name], type(fields[name])) == (value, type(value))


def test_plugin(seeless, plugin):
    fields = fields_of(seeless, "--plugin", plugin, "--strategy", "mymethod", "--keep", "0.25", "--weight", "0.2")
    assert (fields["strategy"], fields["keep"], fields["weight"]) == ("mymethod", 0.25, 0.2)


def test_compare(seeless, tmp_path):
    data = run_json(seeless, "--compare", "fastv, none,vispruner,priortr,fastv", "--keep", 9, "--layer", 4,
                    "--head-aggregation", "max", "--fastv.layer", 3)  # fmt: skip
    assert [line["strategy"] for line in data["runs"]] == ["none", "fastv", "vispruner", "priortr"]
    assert [line["visual_tokens"] for line in data["runs"]] == [144, 9, 9, 9]
    fastv, vispruner, priortr = (line["fields"] for line in data["runs"][1:])
    assert (fastv["layer"], priortr["layer"], priortr["head_aggregation"]) == (3, 4, "max")
    assert "layer" not in vispruner
    assert data["overlay"] is None


def test_compare_as_a_table(seeless, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # long times on a slow day must not make paragraphs of it
    outcome = seeless("run", "--compare", "pool,pyramiddrop", "--repeats", 1, "--max-new-tokens", 2,
                      "--save-overlay", "kept.png")  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    lines = [line.split()[0] for line in outcome.out.splitlines() if line.rstrip().endswith(" ms")]
    assert lines == ["none", "pool", "pyramiddrop"]
    with Image.open("kept.png") as overlay:  # one line of pictures per strategy
        assert overlay.height > 2 * 480


@pytest.mark.parametrize("siglip", [False, True])
def test_a_model_from_disk(seeless, tmp_path, siglip):
    folder = save_llava(tmp_path / "model", siglip=siglip)
    data = run_json(seeless, "--model", folder, "--compare", "fastv,priortr,pool")
    assert data["model"] == str(folder)
    assert [line["visual_tokens"] for line in data["runs"]] == [144, 36, 36, 36]
    assert len(data["runs"][1]["report"]["visual_tokens_per_layer"]) == 4


def test_crops_have_their_own_budget(seeless, tmp_path):
    folder = save_llava_next(tmp_path / "model")
    Image.new("RGB", (180, 170), "navy").save("square.png")
    data = run_json(seeless, "--model", folder, "--image", "square.png", "--compare", "vispruner,fastv", "--keep", 9)
    assert [line["visual_tokens"] for line in data["runs"][1:]] == [5 * 9, 9]
    outcome = seeless("run", *QUICK, "--model", folder, "--image", "square.png", "--strategy", "pool", "--keep", 145)
    assert outcome.code == 2
    assert "keep=145, but the crop has 144 visual tokens" in outcome.err
    assert json.loads(seeless("info", folder, "--json").out)["per"] == "crop"


def test_a_video_is_a_row_of_frames_to_a_model_without_videos(seeless, tmp_path):
    write_videos(tmp_path)
    film = next(tmp_path.rglob("*.mp4"))
    data = run_json(seeless, "--video", film, "--frames", 3, "--keep", 9, "--strategy", "vispruner", "--ask",
                    "what colour is the digit?", "--save-overlay", "kept.png")  # fmt: skip
    assert (data["images"], data["videos"]) == ([], [str(film)])
    assert [line["visual_tokens"] for line in data["runs"]] == [3 * 144, 3 * 9]
    with Image.open("kept.png") as overlay:  # the frames side by side
        assert overlay.width > 2 * overlay.height


def test_frames_are_what_a_picture_of_each_would_be(seeless, tmp_path):
    write_videos(tmp_path)
    film = next(tmp_path.rglob("*.mp4"))
    pictures = []
    for number, frame in enumerate(read_video(film, 2).frames):
        frame.save(f"{number}.png")
        pictures += ["--image", f"{number}.png"]
    asked = ("--ask", "what colour is the digit?", "--strategy", "fastervlm", "--keep", 20)
    as_video = run_json(seeless, "--video", film, "--frames", 2, *asked)["runs"][1]["report"]
    assert as_video == run_json(seeless, *pictures, *asked)["runs"][1]["report"]


def test_a_model_that_takes_videos_needs_a_package_and_has_no_overlay(seeless, tmp_path):
    VideoLlavaConfig().save_pretrained(tmp_path / "model")
    write_videos(tmp_path)
    asked = ("run", "--model", "model", "--video", next(tmp_path.rglob("*.mp4")))
    outcome = seeless(*asked)  # before weights are looked for
    assert outcome.code == 3 and "pip install torchvision" in outcome.err
    outcome = seeless(*asked, "--save-overlay", "kept.png")
    assert outcome.code == 2 and "--save-overlay is for pictures" in outcome.err


@pytest.mark.parametrize("verb", [("run",), ("bench", "--quick")], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--device", "gpu", "here there is cpu"),
        ("--device", "cuda:97", "here there is cpu"),
        ("--device", "meta", "no values"),
        ("--dtype", "int8", "float32, bfloat16"),
        ("--dtype", "float33", "float32, bfloat16"),
        ("--attn-implementation", "fast", "sdpa, eager, flash_attention_2"),
    ],
)
def test_places_that_are_not_there(seeless, verb, option, value, part):
    outcome = seeless(*verb, option, value)
    assert (outcome.code, outcome.out) == (2, "") and value in outcome.err and part in outcome.err
    assert outcome.err.count("\n") == 1


def test_numbers_and_attention_are_the_model_s(seeless, monkeypatch):
    from seeless.asking import inputs as asking

    real, seen = asking.build_inputs, []

    def build(loaded, *arguments):
        seen.append((loaded.model.dtype, loaded.model.config._attn_implementation, loaded.model.device.type))
        return real(loaded, *arguments)

    monkeypatch.setattr(asking, "build_inputs", build)
    run_json(seeless, "--dtype", "bfloat16", "--attn-implementation", "eager", "--device", "cpu")
    run_json(seeless)
    assert seen == [(torch.bfloat16, "eager", "cpu"), (torch.float32, "sdpa", "cpu")]


@pytest.mark.parametrize(
    ("reduced", "said"),
    [
        ([0.9, 0.5], None),
        ([1.0, 0.5], "not faster here: fastv;"),
        ([1.1, 1.2], "not faster here: fastv, pool;"),
    ],
)
def test_what_is_not_faster_is_said(reduced, said):
    times = zip(["none", "fastv", "pool"], [1.0, *reduced], strict=True)
    out = what_is_not_faster([{"strategy": n, "prefill_seconds": t, "visual_tokens": 144} for n, t in times])
    assert (
        (out == "") if said is None else (said in out and "144 visual tokens" in out and "seeless bench --arch" in out)
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--layer", 1], "layer 0 has read"),
        (["--layer", 3], "layers 0 to 2 have read"),
        (["--strategy", "fastervlm"], None),
    ],
)
def test_the_picture_s_dark_parts_may_have_been_read(seeless, asked, told):
    outcome = seeless("run", *QUICK, *asked)
    line = outcome.out.splitlines()[-1]
    assert line.startswith("what was kept: seeless-overlay.png")
    assert line.endswith("overlay.png") if told is None else f"(what is dark {told} all the same)" in line
