"""`seeless analyze`: stopped and continued, what it takes in, and what it refuses."""

import json
import signal

import numpy as np
import pytest

from seeless import SeelessError
from seeless.analysis import AttentionShift, running
from seeless.reader import draw_drawing
from seeless.tiny import draw_scene

PICTURES = 5


@pytest.fixture
def records(tmp_path):
    """Scenes as files, with questions in both formats that are taken."""
    lines = []
    for seed in range(PICTURES):
        scene = draw_scene(seed)
        scene.image.save(tmp_path / f"{seed}.png")
        asked = scene.questions[0].text
        turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": "x"}]
        lines.append({"image": f"{seed}.png", **({"question": asked} if seed % 2 else {"conversations": turns})})
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def studies(folder):
    return json.loads((folder / "numbers.json").read_text())["studies"]


def test_stopped_by_ctrl_c_and_continued_it_gives_what_it_would_have_given(seeless, records, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SAVE_EVERY", 0)
    read, calls = running.read_attention, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return read(*args)

    arguments = ("analyze", records, "--model", "tiny", "--study", "shift,dispersion,share", "--format", "svg")
    with monkeypatch.context() as patched:
        patched.setattr(running, "read_attention", interrupted)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
        try:
            stopped = seeless(*arguments, "--output", "stopped")
        finally:
            signal.signal(signal.SIGINT, before)
    assert stopped.code == 130 and "the same command goes on from there" in stopped.err
    assert not (tmp_path / "stopped" / "numbers.json").exists()
    with np.load(tmp_path / "stopped" / "gathered.npz") as saved:
        assert json.loads(str(saved["head"]))["samples"] == 2
    monkeypatch.setattr(running, "read_attention", lambda *args: (calls.append(args), read(*args))[1])
    calls.clear()
    with monkeypatch.context() as patched:
        patched.setattr(AttentionShift, "draw", lambda *args: [])  # drawing is the other run's
        continued = seeless(*arguments, "--output", "stopped")
    assert continued.code == 0 and len(calls) == PICTURES - 2
    assert seeless(*arguments, "--output", "whole").code == 0
    assert studies(tmp_path / "stopped") == studies(tmp_path / "whole")
    told = json.loads((tmp_path / "whole" / "numbers.json").read_text())
    assert (told["pictures"], told["left_out"], told["grid"]) == (PICTURES, [], [12, 12])
    assert told["command"].startswith("seeless") and told["model"] == "tiny" and {"versions", "commit"} <= set(told)
    drawn = {str(file.relative_to(tmp_path / "whole")) for file in (tmp_path / "whole").rglob("*.svg")}
    layers = {f"shift/layer_{layer:02d}.svg" for layer in range(8)}
    assert drawn == {"shift.svg", "dispersion.svg", "share.svg", "shift/tower.svg"} | layers
    other = seeless(*arguments, "--output", "whole", "--ask", "how many digits are there?")
    assert other.code == 2 and "give another --output" in other.err


def test_a_folder_with_a_broken_picture(seeless, records, tmp_path):
    (tmp_path / "0.png").write_bytes(b"no picture")
    asked = ("--ask", "how many digits are there?", "--samples", 2, "--study", "dispersion", "--json")
    done = seeless("analyze", tmp_path, "--model", "tiny", *asked)
    told = json.loads(done.out)
    assert done.code == 0 and told["pictures"] == 1 and told["left_out"][0][0] == "0.png"
    assert "left out: 0.png" in done.err and told["studies"]["dispersion"]["layer"] == 1


def test_the_overlap_of_methods(seeless, tmp_path):
    arguments = ("analyze", "--model", "tiny", "--study", "overlap", "--strategies", "fastv,uniform", "--keep", ".5,16")
    done = seeless(*arguments, "--samples", 2, "--param", "fastv.layer=4")
    assert done.code == 0 and "fastv and uniform, keep 16" in done.out
    told = studies(tmp_path / "seeless-analysis")["overlap"]
    (pair,) = told[".5"]
    assert pair["overlap"][:4] == [0.5] * 4 and pair["overlap"][4] < 0.5  # all tokens, and then half of them
    assert told["16"][0]["overlap"][0] == pytest.approx(16 / 144)
    assert (tmp_path / "seeless-analysis" / "overlap.png").exists()
    assert (tmp_path / "seeless-analysis" / "sheet.png").exists()
    assert seeless(*arguments, "--param", "layer=5").code == 2  # what was gathered is another method's
    refused = seeless("analyze", "--param", "layer=4").err.replace("│", " ")
    assert "overlap and occlusion have some" in " ".join(refused.split())
    assert seeless("analyze", "--study", "overlap", "--strategies", "fastv").code != 0


def test_occlusion_stopped_and_continued(seeless, records, tmp_path, monkeypatch):
    """Regions of 8 x 8 of the 12 x 12 tokens: four, of which three are smaller."""
    monkeypatch.setattr(running, "SAVE_EVERY", 0)
    arguments = ("analyze", records, "--study", "occlusion", "--region", 8, "--strategies", "fastv", "--keep", ".5")
    arguments += ("--model", "tiny")
    stopped = seeless(*arguments, "--samples", 1, "--output", "stopped")
    assert stopped.code == 0 and "one region of 8 x 8 tokens is dropped" in stopped.out
    assert "of what they lose, where fastv, keep .5, keeps" in stopped.out and "50.0 %" in stopped.out
    assert {file.name for file in (tmp_path / "stopped").glob("*.png")} == {"occlusion.png", "sheet.png"}
    for output in ("stopped", "whole"):
        assert seeless(*arguments, "--samples", 2, "--output", output).code == 0
    assert studies(tmp_path / "stopped") == studies(tmp_path / "whole")
    told = studies(tmp_path / "whole")["occlusion"]
    assert np.shape(told["loss"]) == np.shape(told["changed"]) == (2, 2, 2) and told["kept"][".5"][0]["tokens"] == 0.5
    other = seeless(*arguments, "--region", 4, "--output", "whole")
    assert other.code == 2 and "region=8, not 4" in other.err


def test_what_cannot_be_asked_for(seeless, tmp_path):
    assert "did you mean shift" in seeless("analyze", "--study", "shifts").err
    assert "448x448" in seeless("analyze", "--size", "448").err
    assert "png, svg or pdf" in seeless("analyze", "--format", "gif").err
    (tmp_path / "empty").mkdir()
    nothing = seeless("analyze", tmp_path / "empty")
    assert nothing.code == 2 and "no pictures" in nothing.err
    file = tmp_path / "data.json"
    for record, reason in (({"image": ["a"], "question": "b"}, "one picture per record"), ({"image": "a"}, "--ask")):
        file.write_text(json.dumps([record]))
        refused = seeless("analyze", file)
        assert refused.code == 2 and reason in refused.err and "record 1" in refused.err


@pytest.mark.parametrize(("model", "draw"), [(None, draw_drawing), ("tiny", draw_scene)])
def test_what_is_looked_at_where_nothing_is_named(seeless, monkeypatch, model, draw):
    """The embedded model `reader` and its drawings; scenes are for `tiny`."""
    looked = []

    def gather(loaded, settings, samples, *_):
        looked.append((settings["model"], [(each.question, each.load().tobytes()) for each in samples]))
        raise SeelessError("enough")

    monkeypatch.setattr("seeless.cli.analyze._gather", gather)
    assert "enough" in seeless("analyze", "--samples", 2, *(() if model is None else ("--model", model))).err
    drawn = [draw(seed) for seed in range(2)]
    expected = [(each.questions[0].text, each.image.tobytes()) for each in drawn]
    assert looked == [(model or "reader", expected)]
