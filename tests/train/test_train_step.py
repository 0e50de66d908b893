"""The benchmark of a training step runs, and counts what it says it counts."""

import json

import pytest
import torch

from seeless.bench import train_step
from seeless.bench.train_step import Size


def test_it_runs(tmp_path, monkeypatch, capsys):
    sizes = ["--layers", "4", "--hidden", "64", "--batch", "1", "--length", "640", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["train_step", *sizes, "--output", str(tmp_path / "out.json")])
    train_step.main()
    assert "pyramiddrop" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["command"].endswith("out.json") and found["layers"] == 4 and found["versions"]["torch"]
    full, reduced = found["settings"]["untouched"], found["settings"]["pyramiddrop"]
    assert full["speed_up"] == full["cpu_speed_up"] == full["promised_speed_up"] == 1 and full["saving_reached"] is None
    assert reduced["visual_tokens"] == (576 + 288 + 144 + 72) / 4 and full["visual_tokens"] == 576
    assert reduced["promised_speed_up"] == pytest.approx(full["flops"] / reduced["flops"])
    assert reduced["promised_speed_up"] > 1.5
    for kind in ("", "cpu_"):  # one round: the medians are the round itself
        own = reduced[f"{kind}speed_up"]
        assert own == pytest.approx(full[f"{kind}seconds"] / reduced[f"{kind}seconds"])
        share = (1 - 1 / own) / (1 - 1 / reduced["promised_speed_up"])
        assert reduced[f"{kind}saving_reached"] == pytest.approx(share)
    for row in (full, reduced):
        assert 0 < row["forward_seconds"] < row["seconds"] and row["peak_memory"] > 1e8 and row["cpu_seconds"] > 0


def test_flops_by_hand():
    size = Size(layers=4, hidden=64, batch=2, length=640)
    model = train_step.build_model(size.layers, size.hidden)
    with torch.no_grad(), train_step.sl.apply(model, "uniform", keep=1.0) as run:
        model(**train_step.training_batch(size))

    def decoder(tokens):
        feed_forward = 3 * 64 * (64 * 11 // 4)
        return 2 * tokens * (4 * 64 * 64 + feed_forward) + 4 * tokens * tokens * 64

    tower_layer = 2 * 577 * (4 * 64 * 64 + 2 * 64 * 128) + 4 * 577 * 577 * 64
    tower = 2 * tower_layer + 2 * 576 * (3 * 14 * 14) * 64  # two layers, and the patches' embedding
    projector = 2 * 576 * (64 * 64 + 64 * 64)
    head = 2 * 640 * 64 * 1000
    wanted = 2 * (tower + 3 * (projector + 4 * decoder(640) + head))
    assert train_step.training_flops(run.report, size, reduced=False) == wanted


def test_a_batch_has_its_answer_in_the_last_half_of_the_text():
    batch = train_step.training_batch(Size(length=700))
    assert batch["input_ids"].shape == (2, 700) and (batch["input_ids"] == train_step.IMAGE).sum() == 2 * 576
    assert (batch["labels"] != -100).sum(1).tolist() == [44, 44]
