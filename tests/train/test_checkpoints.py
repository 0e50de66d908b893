"""Checkpoints whose saving was cut off, folders that cannot be written, disks that fill up."""

import json
import multiprocessing
import resource
import shutil

import pytest

import seeless as sl
from seeless.outputs import FileInUse, UnwritableFile, claimed_folder
from seeless.train import Settings, finetune, read_records
from seeless.train.checkpoints import flaw, newest_whole
from training_data import llava_processor, small_model, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def run(data, output, strategy=None, **settings):
    settings = Settings(output, **{"steps": 3, "batch": 2, "save_every": 1, **settings})
    return finetune(small_model(), llava_processor(), read_records(data)[0], settings, strategy)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A run of three steps: checkpoint-2 and checkpoint-3 are there."""
    output = tmp_path_factory.mktemp("whole") / "run"
    return output, run(data, output)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE = {
    "no state": ("trainer_state.json", None, "it has no trainer_state.json"),
    "half a state": ("trainer_state.json", cut, "trainer_state.json cannot be read"),
    "no weights": ("model.safetensors", None, "it has no weights"),
    "half the weights": ("model.safetensors", cut, "model.safetensors is cut off"),
    "no optimizer": ("optimizer.pt", None, "it has no optimizer"),
    "half an optimizer": ("optimizer.pt", cut, "optimizer.pt is cut off"),
    "no schedule": ("scheduler.pt", None, "it has no scheduler.pt"),
    "half a schedule": ("scheduler.pt", cut, "scheduler.pt is cut off"),
    "no random numbers": ("rng_state.pth", None, "it has no rng_state"),
    "half the random numbers": ("rng_state.pth", cut, "rng_state.pth is cut off"),
    "nothing but a name": ("", shutil.rmtree, "it has no trainer_state.json"),
}


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_a_half_checkpoint_is_told(tmp_path, whole, name, damage, reason):
    folder = tmp_path / "checkpoint-3"
    shutil.copytree(whole[0] / "checkpoint-3", folder)
    assert flaw(folder) == ""
    (damage or type(folder).unlink)(folder / name)
    folder.mkdir(exist_ok=True)
    assert flaw(folder) == reason
    shutil.copytree(whole[0] / "checkpoint-2", tmp_path / "checkpoint-2")
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-2", {"checkpoint-3": reason})


def test_a_shard_that_is_missing(tmp_path, whole):
    folder = tmp_path / "checkpoint-3"
    shutil.copytree(whole[0] / "checkpoint-3", folder)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert flaw(folder) == "model.safetensors.index.json is cut off"


def test_numbers_count_not_names(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-x", "checkpoint-11.tmp"):
        (tmp_path / name).mkdir()
    assert list(newest_whole(tmp_path)[1]) == ["checkpoint-10", "checkpoint-9"]
    assert newest_whole(tmp_path / "missing") == (None, {})


def test_a_run_goes_on_from_the_newest_whole_one(tmp_path, whole, data, capsys):
    output = tmp_path / "run"
    shutil.copytree(whole[0], output)
    (output / "checkpoint-3/optimizer.pt").unlink()
    (output / "metrics.jsonl").write_bytes((output / "metrics.jsonl").read_bytes()[:-20])  # the kill cut this, too
    outcome = run(data, output, resume=True)
    said = capsys.readouterr().err
    assert "checkpoint-3 was not saved to its end (it has no optimizer); going on from checkpoint-2" in said
    losses = [line["loss"] for line in whole[1].lines]
    assert [line["loss"] for line in outcome.lines] == losses
    assert [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().split("\n")[:-1]] == losses
    assert flaw(output / "checkpoint-3") == ""


def test_without_a_whole_one_it_says_what_is_wrong_with_each(tmp_path, whole, data):
    output = tmp_path / "run"
    shutil.copytree(whole[0], output)
    for number in (2, 3):
        cut(output / f"checkpoint-{number}" / "model.safetensors")
    with pytest.raises(sl.SeelessError, match=r"no whole checkpoint: checkpoint-3 .*cut off.*checkpoint-2 .*another"):
        run(data, output, resume=True)


@pytest.mark.parametrize(
    ("other", "part"),
    [
        ({"strategy": sl.FastV(keep=0.5)}, "strategy None, not {'strategy': 'fastv'"),
        ({"lr": 1.0}, "lr None, not 1.0"),
        ({"batch": 1}, "batch 2, not 1"),
        ({"freeze": ()}, r"freeze \['tower'\], not \(\)"),
        ({"steps": 3}, "checkpoint-3 has 3 steps, and --steps 3 asks for no more"),
        ({"steps": 2}, "asks for no more"),
    ],
    ids=str,
)
def test_another_run_is_not_gone_on_with(tmp_path, whole, data, other, part):
    shutil.copytree(whole[0], tmp_path / "run")
    before = (tmp_path / "run/metrics.jsonl").read_bytes(), (tmp_path / "run/run.json").read_bytes()
    with pytest.raises(sl.SeelessError, match=part):
        run(data, tmp_path / "run", resume=True, **{"steps": 4, **other})
    assert before == ((tmp_path / "run/metrics.jsonl").read_bytes(), (tmp_path / "run/run.json").read_bytes())


class Fails(sl.EntryStrategy):
    def score(self, ctx):
        raise ArithmeticError("no")


def test_a_run_that_failed_before_its_first_step_is_started_again(tmp_path, data):
    with pytest.raises(ArithmeticError):
        run(data, tmp_path / "run", Fails(keep=0.5))
    assert (tmp_path / "run/run.json").exists()
    assert len(run(data, tmp_path / "run", steps=1, save_every=None).lines) == 1
    with pytest.raises(sl.SeelessError, match=r"holds a run already; write to another folder$"):
        run(data, tmp_path / "run")
    with pytest.raises(sl.SeelessError, match="no checkpoint to go on from; start again in another folder, without"):
        run(data, tmp_path / "run", resume=True)


def test_a_folder_that_another_run_writes_to(tmp_path, data):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()

    def hold():
        with claimed_folder(tmp_path / "run"):
            held.set()
            done.wait(60)

    holder = context.Process(target=hold)
    holder.start()
    assert held.wait(60)
    with pytest.raises(FileInUse, match="another process writes to"):
        run(data, tmp_path / "run")
    done.set()
    holder.join()


def _run_within(limit, data, output):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run(data, output)
    except UnwritableFile as error:
        output.with_suffix(".error").write_text(str(error)[:limit])
        raise SystemExit(3) from error


@pytest.mark.parametrize("limit", [300, 20_000, 330_000], ids=["run.json", "weights", "optimizer"])
def test_a_disk_that_fills_up(tmp_path, data, limit):
    started = multiprocessing.get_context("fork").Process(target=_run_within, args=(limit, data, tmp_path / "run"))
    started.start()
    started.join()
    said = (tmp_path / "run.error").read_text()
    assert started.exitcode == 3 and said.startswith(f"cannot write {tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lr": float("inf")}, "lr=inf"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": -1e-3}, "lr=-0.001"),
        ({"warmup": float("nan")}, "warmup=nan"),
        ({"epochs": float("inf")}, "epochs=inf"),
        ({"seed": 10**20}, "seed=100000000000000000000"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_are_no_numbers(tmp_path, settings, reason):
    with pytest.raises(sl.BudgetError, match=reason):
        Settings(tmp_path, **settings)
