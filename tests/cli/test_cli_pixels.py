"""Run, training and evaluation, by path and by Pillow image, show a model the same pixels."""

import base64
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_files import shown, stored, tiff, written

from seeless.integrations.batches import Batches
from seeless.integrations.prompts import prompt_of_text
from seeless.tiny import load_tiny
from seeless.train import BadRecordList, read_records
from seeless.train import Batches as TrainingBatches


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8
    return written(Image.fromarray(stored(shown(96, 96), 8)), "PNG", exif=exif.tobytes())


def transparent() -> bytes:
    array = np.dstack([shown(96, 96), np.zeros((96, 96), np.uint8)])
    array[20:70, 30:40, 3] = 255
    return written(Image.fromarray(array), "PNG")


RAMP = np.linspace(0, 65535, 96 * 96).reshape(96, 96)
ODD = {
    "turned": turned(),
    "transparent": transparent(),
    "16 bits": tiff(RAMP.astype(np.uint16), 1),
    "floats": tiff((RAMP / 65535).astype(np.float32), 3),
    "CMYK": written(Image.fromarray(shown(96, 96)).convert("CMYK"), "TIFF"),
    "palette": written(Image.fromarray(shown(96, 96)).convert("P"), "GIF"),
}


@pytest.fixture(scope="module")
def tiny():
    return load_tiny()


@pytest.mark.parametrize(("name", "data"), ODD.items(), ids=ODD)
def test_the_same_pixels_everywhere(tmp_path, monkeypatch, seeless, tiny, name, data):
    model, processor = tiny
    file = tmp_path / "odd.png"
    file.write_bytes(data)
    seen = {}

    from seeless.asking import inputs as asking

    real = asking.build_inputs

    def build(*arguments):
        inputs = real(*arguments)
        seen["run"] = inputs["pixel_values"]
        return inputs

    monkeypatch.setattr(asking, "build_inputs", build)
    assert seeless("run", "--model", "tiny", "--image", file, "--repeats", 0, "--max-new-tokens", 1, "--json").code == 0

    talk = [{"from": "human", "value": "<image>what?"}, {"from": "gpt", "value": "7"}]
    (tmp_path / "data.json").write_text(json.dumps([{"image": "odd.png", "conversations": talk}]))
    records, bad = read_records(tmp_path / "data.json")
    assert bad == []
    collate = TrainingBatches(processor, BadRecordList(tmp_path / "bad.jsonl", False))
    seen["training"] = collate([(records, 0)])["pixel_values"]

    batches = Batches(model, processor)
    seen["evaluation by path"] = batches([prompt_of_text("what?", [file], 8)])["pixel_values"]
    seen["evaluation by image"] = batches([prompt_of_text("what?", [Image.open(file)], 8)])["pixel_values"]
    for where, pixels in seen.items():
        assert torch.equal(pixels, seen["run"]), where
    assert float(seen["run"].std()) > 0.1  # neither all white nor all black


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 1), (20, 30), (2500, 2000)])
def test_the_overlay_is_bounded_on_both_sides(seeless, tmp_path, size):
    Image.new("RGB", size, "navy").save("odd.png")
    outcome = seeless("run", "--model", "tiny", "--image", "odd.png", "--repeats", 0, "--max-new-tokens", 1)
    assert outcome.code == 0, outcome.err
    with Image.open("seeless-overlay.png") as overlay:
        assert max(overlay.size) <= 1920
        assert min(overlay.size) >= 480 or max(overlay.size) * 2 > 1920
        assert abs(overlay.width * size[1] - overlay.height * size[0]) <= max(size)  # its shape, up to a pixel


def test_pictures_in_text(seeless):
    source = "data:image/png;base64," + base64.b64encode(turned()).decode()
    for arguments in ((), ("--json",)):
        outcome = seeless(
            "run", "--model", "tiny", "--image", source, "--repeats", 0, "--max-new-tokens", 1, *arguments
        )
        assert outcome.code == 0 and source not in outcome.out and "data:image/png;base64," in outcome.out
    outcome = seeless("run", "--model", "tiny", "--image", "data:image/png;base64," + "A" * 28_000)
    assert outcome.code == 5 and len(outcome.err) < 500 and outcome.err.count("\n") == 1
