"""`seeless check-family`, and families from outside: by plug-in, by entry point, from Python."""

import importlib.util
import json
from importlib.metadata import EntryPoint

import pytest
from transformers import CONFIG_MAPPING

import seeless as sl
from seeless import families
from seeless.checking.shrinking import shrunk

OUTSIDE = """
import seeless as sl

sl.register_family(
    sl.Family(
        title="Qianfan-OCR",
        model_types=("qianfan_ocr",),
        tower_layers=("layers",),
        class_token_towers=("qianfan_ocr_vision",),
        merge="downsample_ratio",
        runs=True,
        overview=-1,
    )
)
"""


@pytest.fixture
def plugged(tmp_path):
    """Writes a plug-in; `changes` replace text of the one that is right."""

    def write(**changes):
        text = OUTSIDE
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "qianfan.py"
        file.write_text(text)
        return file

    return write


def test_a_family_that_is_not_in_the_package_is_green(seeless, plugged):
    assert "qianfan_ocr" not in families._own()
    done = seeless("check-family", "qianfan_ocr", "--plugin", plugged(), "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert {check["state"] for check in found["checks"]} == {"holds"} and len(found["checks"]) == 9
    table = seeless("check-family", "qianfan_ocr", "--plugin", plugged()).out
    assert table.count("holds") == 9 and "cuts by the attention of layers to come" in table


@pytest.mark.parametrize("name", ["", "config.json"])
def test_a_folder_or_its_config_is_enough(seeless, plugged, tmp_path, name):
    CONFIG_MAPPING["qianfan_ocr"]().save_pretrained(tmp_path / "model")
    assert seeless("check-family", tmp_path / "model" / name, "--plugin", plugged()).code == 0


def test_what_the_family_says_wrongly_fails_or_is_told(seeless, plugged):
    wrong = {
        "layers": ('("layers",)', '("encoder.layer",)', 4, "QianfanOCRVisionModel has none of"),
        "projector": ("runs=True", 'projector="merger"', 4, "QianfanOCRModel has no 'merger'"),
        "class token": ('("qianfan_ocr_vision",)', "()", 1, "checks fail"),
        "base": (
            "runs=True",
            'base="body", language_model="speaker"',
            4,
            "has no get_image_features; base of the",
        ),
        "placeholder": ("runs=True", 'image_token="picture_id"', 4, "has no 'picture_id'"),
        "field": ("runs=True", "run=True", 7, "a Family has no field 'run'; did you mean runs"),
        "value": (
            "runs=True",
            'runs="yes"',
            7,
            "runs='yes' of the family 'Qianfan-OCR' is not possible; it takes bool",
        ),
    }
    for old, new, code, said in wrong.values():
        done = seeless("check-family", "qianfan_ocr", "--plugin", plugged(change=(old, new)))
        assert (done.code, said in " ".join(done.err.split())) == (code, True), (new, done)


def test_types_that_are_refused_or_unknown(seeless):
    refused = seeless("check-family", "mllama")
    assert refused.code == 4 and "cross-attention" in refused.err
    assert seeless("info", "mllama").code == 4 and "cross-attention" in seeless("info", "mllama").err
    assert seeless("check-family", "no_such_type").code == 6
    assert seeless("check-family", "./nowhere").code == 6


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is there")
@pytest.mark.parametrize("verb", ["check-family", "info"])
def test_a_package_that_a_tower_needs_is_named(seeless, verb):
    done = seeless(verb, "fast_vlm")
    assert done.code == 3 and "pip install timm" in done.err and done.err.count("\n") == 1


def test_a_family_of_another_package(monkeypatch, seeless):
    class Point(EntryPoint):
        def load(self):
            exec(OUTSIDE, {"__name__": "entered"})

    def entry_points(group):
        return [Point("x", "y", group)] if group == families.ENTRY_POINTS else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    families._load_packages.cache_clear()
    try:
        assert seeless("check-family", "qianfan_ocr").code == 0
    finally:
        families._load_packages.cache_clear()


def test_names_belong_to_one_family(seeless):
    mine = sl.register_family(sl.Family(title="Mine", model_types=("mine", "mine2")))
    assert families.family_of("mine2") is mine
    again = sl.register_family(sl.Family(title="Mine", model_types=("mine",)))
    assert families.family_of("mine") is again and "mine2" not in families.families()
    with pytest.raises(sl.UnsupportedModel, match="already belong to the family 'Mine'"):
        sl.register_family(sl.Family(title="Other", model_types=("mine",)))
    with pytest.raises(sl.UnsupportedModel, match=r"already belong to the family 'LLaVA-1\.5'"):
        sl.register_family(sl.Family(title="Other", model_types=("llava",)))
    with pytest.raises(sl.UnsupportedModel, match="is no family"):
        sl.register_family("llava")
    for given in ({}, {"title": "A"}, {"model_types": ("a",)}):
        with pytest.raises(sl.UnsupportedModel, match="needs a title"):
            sl.Family(**given)
    with pytest.raises(sl.UnsupportedModel, match=r"model_types='a' .* takes tuple\[str, ...\]"):
        sl.Family(title="A", model_types="a")


def test_small_configs_keep_what_is_no_size():
    config = CONFIG_MAPPING["internvl"](downsample_ratio=0.25)
    small = shrunk(config)
    assert small.downsample_ratio == 0.25 and small.text_config.model_type == config.text_config.model_type
    assert small.text_config.num_hidden_layers < config.text_config.num_hidden_layers
