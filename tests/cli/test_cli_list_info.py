"""`seeless list`, `seeless info`, `seeless --version`."""

import json

from saved_models import save_llava

import seeless as sl
from seeless import models
from tinies import InternVL, PaliGemma, Qwen2VL


def test_version_and_help(seeless):
    assert seeless("--version").out == f"seeless {sl.__version__}\n"
    for verb in ("list", "info", "run"):
        assert verb in seeless("--help").out
        assert seeless(verb, "--help").code == 0


def test_list_shows_every_strategy(seeless):
    outcome = seeless("list")
    assert (outcome.code, outcome.err) == (0, "")
    for name in sl.available():
        assert name in outcome.out
    assert "layer=2" in outcome.out
    assert "arXiv 2403.06764" in outcome.out


def test_list_as_json(seeless):
    outcome = seeless("list", "--json")
    cards = {card["name"]: card for card in json.loads(outcome.out)}
    assert [name for name, card in cards.items() if not card["guest"]] == sl.available()
    fastv = cards["fastv"]
    assert (fastv["stage"], fastv["paper"]) == ("layer", "arXiv 2403.06764")
    assert fastv["doc"].startswith("Keep the tokens the last prompt token attends to most")
    knobs = {knob["name"]: knob for knob in fastv["fields"]}
    assert knobs["keep"]["required"]
    assert knobs["layer"]["default"] == 2
    assert knobs["layer"]["help"] == "K of the paper."
    assert cards["pyramiddrop"]["fields"][0]["default"] == [0.5, 0.25, 0.125]


def test_plugins_are_listed_and_have_a_card(seeless, plugin):
    assert "mymethod" not in seeless("list").out
    assert "mymethod" in seeless("list", "--plugin", plugin).out
    card = seeless("info", "mymethod", "--plugin", plugin).out
    assert "Keep what the last token looks at and what is large." in card
    assert "--weight" in card


def test_info_on_a_strategy(seeless):
    out = seeless("info", "priortr").out
    for part in ("layer stage", "arXiv 2606.24156", "--head-aggregation", "mean or max", "threshold", "trim"):
        assert part in out
    card = json.loads(seeless("info", "priortr", "--json").out)
    assert [knob["name"] for knob in card["fields"]][-1] == "last_row"
    assert all(knob["help"] for knob in card["fields"])


def test_info_without_a_name_is_the_embedded_model(seeless):
    outcome = seeless("info")
    for part in ("the embedded model reader", "LLaVA-1.5", "8 layers", "576 per image", "clip_vision_model"):
        assert part in outcome.out
    assert outcome.err == ""
    assert seeless("info", "reader").out == outcome.out
    tiny = seeless("info", "tiny").out
    assert "the embedded model tiny" in tiny and "144 per image" in tiny


def test_info_on_a_config_without_weights(seeless, tmp_path):
    folder = save_llava(tmp_path / "model", layers=3, siglip=True)
    (folder / "model.safetensors").unlink()
    info = json.loads(seeless("info", folder, "--json").out)
    assert info["model"] == str(folder)
    assert (info["family"], info["decoder"], info["layers"]) == ("LLaVA-1.5", "llama", 3)
    assert (info["hidden"], info["heads"], info["kv_heads"]) == (96, 6, 3)
    assert (info["tower"], info["tower_layers"], info["class_token"]) == ("siglip_vision_model", 3, False)
    assert (info["visual_tokens"], info["per"], info["anchor"]) == (144, "image", 0)
    reasons = info["strategies"]
    assert list(reasons) == sl.available()
    assert "3 layers" in reasons["pyramiddrop"]
    assert "3 layers" in reasons["priortr"]  # its default layer is 3
    assert all(reasons[name] is None for name in ("fastv", "fastervlm", "vispruner", "pool", "random", "uniform"))
    assert (info["vision_signal"], info["videos"]) == ("mean received attention (no class token)", False)
    lines = [line.split() for line in seeless("info", folder).out.splitlines()]
    for line in (
        "class token no",
        "vision signal mean received attention (no class token)",
        "videos no, only as a row of images",
        "visual tokens 144 per image",
        "anchor token 0 after the image",
    ):
        assert line.split() in lines


def test_info_says_what_sets_a_family_apart(seeless, tmp_path):
    """Videos, no fixed number of tokens, tokens per crop, a later anchor, a strategy that lacks its signal."""
    for tiny, videos, tokens, per, anchor, missing in (
        (Qwen2VL(), True, None, "image", 0, None),
        (InternVL(), False, 16, "crop", 1, None),
        (PaliGemma(), False, 16, "image", 0, "blind to the question"),
    ):
        folder = tmp_path / tiny.name
        tiny.config().save_pretrained(folder)
        info = json.loads(seeless("info", folder, "--json").out)
        assert (info["videos"], info["visual_tokens"], info["per"], info["anchor"]) == (videos, tokens, per, anchor)
        for name in ("priortr", "priortr_2f"):
            reason = info["strategies"].pop(name)
            assert (reason is None) if missing is None else (missing in reason)
        without = info["strategies"].pop("flowcut")  # ranks by a class token
        assert without is None if tiny.name == "internvl" else "vision tower has none" in without
        assert set(info["strategies"].values()) == {None}
        out = seeless("info", folder).out
        assert info["vision_signal"] in out
        assert ("as many as the picture's size asks for" if tokens is None else f"{tokens} per {per}") in out
        assert f"token {anchor} after the image" in out


def test_supported_models():
    found = {model.title: model for model in models.supported_models()}
    assert found["LLaVA-1.5"].model_types == ("llava",)
    for model in found.values():
        for original, converted in model.checkpoints.items():
            assert models.converted_name(original) == converted
            assert models.converted_name(converted) == converted
    assert models.converted_name("liuhaotian/llava-v1.5-7b") == "llava-hf/llava-1.5-7b-hf"


def test_an_original_name_is_mapped_and_said(seeless):
    outcome = seeless("info", "liuhaotian/llava-v1.5-7b")  # offline: the config itself cannot be had
    assert outcome.code == 6
    notice, error = outcome.err.splitlines()
    assert "liuhaotian/llava-v1.5-7b" in notice
    assert "llava-hf/llava-1.5-7b-hf" in notice
    assert "'llava-hf/llava-1.5-7b-hf'" in error
