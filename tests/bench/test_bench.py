"""`seeless bench`: what it writes, and its arithmetic against what torch counts; not how long anything takes."""

import json
from fractions import Fraction

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import seeless as sl
from seeless import models
from seeless.bench.architectures import ARCHITECTURES, scaled
from seeless.bench.clock import PARTS, Clock, Split
from seeless.bench.loading import load
from seeless.bench.prompts import Workload, make_inputs
from seeless.cli.main import main

# Parameters in thousand millions, as the makers of these models give them, or as their files add up.
SIZES = {
    "llava-1.5-7b": 7.06,
    "llava-1.5-13b": 13.35,
    "llava-next-7b": 7.06,
    "llava-onevision-7b": 8.03,
    "qwen2.5-vl-7b": 8.29,
    "qwen3-vl-8b": 8.77,
    "internvl3-8b": 7.94,
    "video-llava-7b": 7.37,
}
SMALL = Workload(batch=1, picture=(336, 336), pictures=1, frames=0, text=12, answer=2)


def test_architectures_are_as_large_as_the_real_ones():
    from transformers import AutoConfig

    assert SIZES.keys() == ARCHITECTURES.keys()
    for name, size in SIZES.items():
        skeleton = models.skeleton(AutoConfig.for_model(**scaled(name, Fraction(1))))
        assert sum(p.numel() for p in skeleton.parameters()) / 1e9 == pytest.approx(size, rel=0.01), name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_analytic_figures_are_what_torch_counts(name):
    loaded = load(None, name, Fraction(1, 64), None, "cpu", None, "eager")  # of it torch counts every product
    inputs = make_inputs(loaded.model, loaded.image_processor, SMALL)
    with torch.no_grad():
        for strategy in (sl.Uniform(keep=1.0), sl.Uniform(keep=0.25), sl.FastV(keep=0.25)):  # choosing is not counted
            with sl.apply(loaded.model, strategy) as run:
                loaded.model(**inputs, use_cache=True, logits_to_keep=1)  # what the self-check computes comes once
                with FlopCounterMode(display=False) as counter:
                    loaded.model(**inputs, use_cache=True, logits_to_keep=1)
            assert run.report.flops_after.total == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "qwen3-vl-8b", "video-llava-7b"])
def test_analytic_figures_of_videos_are_what_torch_counts(name):
    loaded = load(None, name, Fraction(1, 64), 4, "cpu", None, "eager")
    for frames in (1, 4):
        workload = Workload(batch=1, picture=(128, 100), pictures=2, frames=frames, text=12, answer=2)
        inputs = make_inputs(loaded.model, loaded.image_processor, workload)
        with torch.no_grad(), sl.apply(loaded.model, sl.Uniform(keep=0.25)) as run:
            loaded.model(**inputs, use_cache=True, logits_to_keep=1)
            with FlopCounterMode(display=False) as counter:
                loaded.model(**inputs, use_cache=True, logits_to_keep=1)
        assert run.report.flops_after.total == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_shallower_architecture_keeps_its_proportions():
    config = scaled("qwen2.5-vl-7b", Fraction(1, 8), 14)
    assert config["text_config"]["num_hidden_layers"] == 14 and config["vision_config"]["depth"] == 16
    assert config["vision_config"]["fullatt_block_indexes"] == [3, 7, 11, 15]
    assert scaled("qwen3-vl-8b", Fraction(1, 8), 12)["vision_config"]["deepstack_visual_indexes"] == [2, 4, 7]


def rows_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["bench", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_rows_have_everything(capsys, tmp_path):
    file = tmp_path / "rows.jsonl"
    asked = ["--strategies", "fastv,cdpruner", "--keep", "0.5,36", "--batch", "1,2", "--prompt", "9", "--answer", "3"]
    asked += ["--processor-time", "--cache", "static", "--model", "tiny"]
    code, out, err = rows_of(capsys, *asked, "--rounds", "2", "--json", "--output", str(file))
    assert (code, err.strip()) == (0, "")
    rows = json.loads(out)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows
    assert len(rows) == 2 * 5
    for row in rows:
        assert row["versions"]["torch"] and row["machine"] and row["command"].startswith("seeless")
        assert (row["weights"], row["device"], row["dtype"]) == ("own", "cpu", "float32")
        assert (row["clock"], row["cache"], row["depth"]) == ("processor", "static", None)
        if row["strategy"] == "cdpruner":
            assert "clip=" in row["refused"] and "seconds" not in row
            continue
        seconds = row["seconds"]
        assert set(seconds["parts"]) == {*PARTS, "rest"}
        assert all(found["low"] <= found["median"] <= found["high"] for found in seconds["parts"].values())
        assert seconds["parts"]["tower"]["median"] > 0 and seconds["later"]["median"] > 0
        assert (seconds["parts"]["selection"]["median"] > 0) == (row["strategy"] == "fastv")
        assert row["rounds"] == 2 and row["requests_per_second"] > 0 and row["peak_bytes"] > 0
        for part, share in row["efficiency"].items():
            assert share == pytest.approx(row["speed_up"][part] / row["flops_speed_up"][part])
        if row["strategy"] == "none":
            assert row["speed_up"] == {"first": 1, "decoder": 1, "later": 1}
            assert row["flops_speed_up"] == {"first": 1, "decoder": 1}
            assert row["tokens"]["layers"] == [144] * 8 and row["fields"] is None
        else:
            kept = 72 if row["keep"] == 0.5 else 36
            assert (row["tokens"]["kept"], row["tokens"]["layers"][-1]) == (kept, kept)
            assert row["fields"]["strategy"] == "fastv" and row["flops_speed_up"]["decoder"] > 1
            assert row["kv_bytes"]["after"] < row["kv_bytes"]["before"]


def test_a_table_and_a_picture(capsys, tmp_path):
    file, picture = tmp_path / "rows.jsonl", tmp_path / "bench.png"
    code, out, err = rows_of(
        capsys, "--quick", "--model", "tiny", "--strategies", "uniform,tome,evs", "--output", str(file)
    )
    assert code == 0 and "144 visual tokens a request" in out and "uniform" in out and "efficiency" in out
    assert "evs" in out + err
    tome = next(row for row in map(json.loads, file.read_text().splitlines()) if row["strategy"] == "tome")
    assert tome["seconds"]["parts"]["selection"]["median"] > 0  # what it decides inside the tower
    with pytest.raises(SystemExit) as ended:
        main(["plot", str(file), "--output", str(picture)])
    assert ended.value.code == 0 and picture.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--arch", "llava-9"], 2, "no architecture is called 'llava-9'; there are llava-1.5-7b"),
        (["--model", "some/model", "--arch", "llava-1.5-7b"], 2, "not both"),
        (["--scale", "1/2"], 2, "--scale is the width of --arch"),
        (["--scale", "2"], 2, "--scale 2 is no share"),
        (["--scale", "1/0"], 2, "--scale 1/0 is no share"),
        (["--image-size", "big"], 2, "give height x width"),
        (["--frames", "8"], 4, "takes no videos of their own; give frames as pictures: --images 8"),
        (["--frames", "0"], 2, "no whole number of at least 1"),
        (["--layers", "3"], 2, "--layers is the depth of --arch"),
        (["--arch", "llava-1.5-7b", "--layers", "33"], 2, "has 32 decoder layers, so there are no 33"),
        (["--cache", "paged"], 2, "--cache paged is none of dynamic, static"),
        (["--image-size", "0x5"], 2, "give height x width"),
        (["--batch", "0"], 2, "no whole number of at least 1"),
        (["--prompt", "x"], 2, "no whole number of at least 1"),
        (["--dtype", "float99"], 2, "dtype 'float99' is none a model computes in"),
        (["--keep", "nan"], 2, "give shares"),
        (["--strategies", "fastw"], 2, "fastw"),
        (["--strategies", "fastv", "--no-such-field", "3"], 2, "fastv has no field 'no_such_field'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_what_cannot_be_is_told_in_a_sentence(capsys, arguments, code, told):
    found, _, err = rows_of(capsys, *arguments)
    assert found == code and told in err.replace("\n", " ") and "Traceback" not in err


def test_without_a_model_it_is_reader(capsys, monkeypatch):
    seen = []

    def begin(model, processor, workload, *_, **__):
        seen.append((model.config.image_seq_length, workload.picture))
        raise sl.InputError("enough")

    monkeypatch.setattr("seeless.bench.measure.measure", begin)
    assert "enough" in rows_of(capsys, "--quick")[2] and seen == [(576, (192, 192))]


def test_what_runs_inside_another_part_is_not_counted_there(monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr("seeless.bench.clock.Clock.now", lambda clock: next(times) ** 2)
    split = Split(Clock(torch.device("cpu")))
    with split.within("rest"), split.within("decoder"), split.within("selection"):  # at 0, 1 and 4
        pass  # they end at 9, 16 and 25
    assert split.seconds == {"rest": 1 + 9, "decoder": 3 + 7, "selection": 5, "tower": 0, "projector": 0}
