"""Runs on one process: what they learn, write, freeze and pick up again."""

import builtins
import copy
import json
import shutil

import pytest
import torch

import seeless as sl
from seeless import models
from seeless.train import BadRecords, Settings, finetune, read_records
from training_data import entry, llava_processor, small_model, write_data

PYRAMID = sl.PyramidDrop(layer=[1, 2, 3], keep=[0.5, 0.25, 0.125])


@pytest.fixture
def records(tmp_path):
    return read_records(write_data(tmp_path / "data"))[0]


def run(records, output, strategy=None, model=None, eval_records=(), **settings):
    settings = {"steps": 3, "batch": 2, "lr": 3e-3, **settings}
    model = small_model() if model is None else model
    settings = Settings(output=output, **settings)
    return model, finetune(model, llava_processor(), records, settings, strategy, eval_records)


def losses(outcome):
    return [line["loss"] for line in outcome.lines if "loss" in line]


@pytest.mark.parametrize("strategy", [None, PYRAMID], ids=["untouched", "pyramiddrop"])
def test_ten_steps_lower_the_loss(tmp_path, records, strategy):
    model, outcome = run(records, tmp_path / "run", strategy, steps=10, batch=4, save_every=5)
    found = losses(outcome)
    assert len(found) == 10 and sum(found[-2:]) < 0.8 * sum(found[:2])
    assert sl.api.active_handle(model) is None and not model.training

    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines == outcome.lines and [line["step"] for line in lines] == list(range(1, 11))
    per_layer = 144 if strategy is None else (144 + 72 + 36 + 18) / 4
    for line in lines:
        assert set(line) == {"step", "loss", "lr", "grad_norm", "seconds", "tokens", "visual_tokens", "peak_memory"}
        assert line["seconds"] > 0 and line["peak_memory"] > 1e6
        assert (
            line["visual_tokens"] is None or per_layer <= line["visual_tokens"] <= 2 * per_layer
        )  # one picture or two
    assert lines[0]["tokens"] > 0 and lines[-1]["tokens"] > 9 * lines[0]["tokens"] / 2

    about = json.loads((tmp_path / "run/run.json").read_text())
    assert about["versions"]["torch"] == torch.__version__ and about["outcome"] == outcome.to_dict()
    assert about["strategy"] == (None if strategy is None else strategy.to_dict())
    assert 0 < about["weights_trained"] < about["weights"]
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-5", "checkpoint-10"}
    again = type(model).from_pretrained(outcome.folder)
    for (name, saved), trained in zip(again.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(saved, trained), name
    assert "use_cache" not in vars(model.config) and "use_cache" not in vars(again.config)


RESUMED = {"untouched": (None, {}), "pyramiddrop": (PYRAMID, {"freeze": ()}), "lora": (PYRAMID, {"lora": 4})}


@pytest.mark.parametrize(("strategy", "more"), RESUMED.values(), ids=RESUMED)
def test_a_resumed_run_goes_on_as_if_uninterrupted(tmp_path, records, strategy, more):
    more = {"steps": 6, "save_every": 3, "accumulate": 2, **more}
    whole, complete = run(records, tmp_path / "whole", strategy, **more)
    shutil.copytree(tmp_path / "whole/checkpoint-3", tmp_path / "part/checkpoint-3")
    four = (tmp_path / "whole/metrics.jsonl").read_text().splitlines(True)[:4]  # it had got beyond its checkpoint
    (tmp_path / "part/metrics.jsonl").write_text("".join(four))
    part, resumed = run(records, tmp_path / "part", strategy, resume=True, **more)
    assert losses(resumed) == losses(complete) and len(losses(resumed)) == 6
    assert [line["tokens"] for line in resumed.lines] == [line["tokens"] for line in complete.lines]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, part.state_dict()[name]), name


def test_a_folder_in_use_and_nothing_to_resume(tmp_path, records):
    with pytest.raises(sl.SeelessError, match="no checkpoint to go on from"):
        run(records, tmp_path / "run", resume=True)
    run(records, tmp_path / "run", steps=1)
    with pytest.raises(sl.SeelessError, match="holds a run already"):
        run(records, tmp_path / "run", steps=1)


@pytest.mark.parametrize(
    "freeze", [(), ("tower",), ("tower", "decoder"), ("tower", "projector"), ("projector", "decoder")], ids=str
)
def test_frozen_parts_stay(tmp_path, records, freeze):
    before = small_model()
    model, _ = run(records[:4], tmp_path / "run", PYRAMID, model=copy.deepcopy(before), freeze=freeze, batch=4)
    old = dict(before.named_parameters())
    parts = models.parameter_names(model)
    for part, names in parts.items():
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, old[name])} & set(names)
        unused = (
            {name for name in names if "layers.1." in name or "post_layernorm" in name} if part == "tower" else set()
        )
        assert moved == (set() if part in freeze else set(names) - unused), part
    assert sum(map(len, parts.values())) == len(old)


def test_everything_frozen_is_refused(tmp_path, records):
    with pytest.raises(sl.BudgetError, match="nothing to train"):
        run(records, tmp_path / "run", freeze=("tower", "projector", "decoder"))


def test_lora_trains_adapters_of_the_parts_that_are_not_frozen(tmp_path, records):
    from peft import PeftModel

    before = small_model()
    model, outcome = run(
        records, tmp_path / "run", PYRAMID, model=copy.deepcopy(before), lora=4, steps=8, batch=4, lr=1e-2
    )
    assert losses(outcome)[-1] < losses(outcome)[0]
    old = dict(before.named_parameters())
    for name, value in model.named_parameters():
        if "lora" not in name:
            assert torch.equal(value, old[name.replace(".base_layer", "")]), name
    adapted = {name.split(".lora")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert any("q_proj" in name for name in adapted) and any("projector" in name for name in adapted)
    assert not any("vision_tower" in name or "lm_head" in name for name in adapted)
    again = PeftModel.from_pretrained(before, outcome.folder)
    for name, value in model.named_parameters():
        if "lora" in name:
            assert torch.equal(dict(again.named_parameters())["base_model.model." + name], value), name


def test_checkpointing_bfloat16_and_workers(tmp_path, records):
    exact = losses(run(records, tmp_path / "exact", PYRAMID)[1])
    again = losses(run(records, tmp_path / "again", PYRAMID, checkpointing=True)[1])
    assert again == pytest.approx(exact, rel=1e-5)
    half = losses(run(records, tmp_path / "half", PYRAMID, bf16=True, workers=1)[1])
    assert half == pytest.approx(exact, rel=0.1) and half != exact


def test_accumulating_counts_every_answer_token_once(tmp_path, records):
    at_once, _ = run(records[:4], tmp_path / "one", batch=4, steps=1, warmup=0)
    in_turn, _ = run(records[:4], tmp_path / "four", batch=1, accumulate=4, steps=1, warmup=0)
    for (name, first), second in zip(at_once.named_parameters(), in_turn.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4, msg=name)
    assert losses(run(records[:4], tmp_path / "a", batch=4, steps=1)[1]) == pytest.approx(
        losses(run(records[:4], tmp_path / "b", batch=1, accumulate=4, steps=1)[1]), rel=1e-4
    )


def test_evaluation(tmp_path, records):
    _, outcome = run(records[:8], tmp_path / "at the end", PYRAMID, eval_records=records[8:])
    assert [line["step"] for line in outcome.lines if "eval_loss" in line] == [3]
    _, outcome = run(records[:8], tmp_path / "often", PYRAMID, eval_records=records[8:], save_every=2)
    assert [line["step"] for line in outcome.lines if "eval_loss" in line] == [2, 3]
    assert outcome.to_dict()["eval_loss"] == outcome.lines[-1]["eval_loss"]


def test_an_unreadable_picture_stops_the_run_or_is_skipped(tmp_path, records):
    (tmp_path / "data/2.png").write_text("no picture")
    model = small_model()
    with pytest.raises(BadRecords, match=r"cannot train on .*data\.json, record \d+ .*cannot read the picture"):
        run(records, tmp_path / "run", PYRAMID, model=model, steps=12)
    assert sl.api.active_handle(model) is None
    _, outcome = run(records, tmp_path / "skipping", PYRAMID, steps=12, skip_bad_records=True)
    assert outcome.bad == 3
    lines = [json.loads(line) for line in (tmp_path / "skipping/bad_records.jsonl").read_text().splitlines()]
    assert {line["where"] for line in lines} == {"record 3", "record 7", "record 11"} and len(lines) == 3


def test_fsdp_needs_gpus(tmp_path, records, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(sl.SeelessError, match="FSDP needs GPUs"):
        run(records, tmp_path / "run", fsdp=tmp_path / "fsdp.json")


def test_text_alone(tmp_path):
    (tmp_path / "text.json").write_text(json.dumps([entry(str(n), ["which?", "7"]) for n in range(4)]))
    _, outcome = run(read_records(tmp_path / "text.json")[0], tmp_path / "run", PYRAMID)
    assert outcome.to_dict()["visual_tokens"] is None


def test_packages_that_are_missing(tmp_path, records, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "peft" else builtins.object())
    with pytest.raises(sl.MissingExtra, match=r'peft: pip install "seeless\[train\]"'):
        run(records, tmp_path / "run", lora=4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(sl.MissingExtra, match=r'accelerate: pip install "seeless\[train\]"'):
        run(records, tmp_path / "run")
