"""Sweeps on the embedded model: rows against independent counts, interruption, loyalty, refusals."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import seeless as sl
import seeless.tiny
from seeless.eval import tasks_path
from seeless.eval.errors import InvalidRequest
from seeless.eval.intervals import wilson
from seeless.eval.rows import key_of, read_rows
from seeless.eval.sweep import Asked, plan, reference_of, sweep
from seeless.weights import fingerprint

LIMIT = 8
ASKED = Asked("tiny", ["seeless_scenes"], limit=LIMIT, batch_size=4, command="a test")


@pytest.fixture(scope="module")
def tiny():
    return seeless.tiny.load_tiny()


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A sweep over a few strategies, and its result file."""
    file = tmp_path_factory.mktemp("sweep") / "sweep.jsonl"
    outcome = sweep(*tiny, plan(["fastv", "pool", "evs", "cdpruner", "router"], [0.25]), ASKED, file)
    assert outcome.old == [] and read_rows(file) == (outcome.new, [])
    return {row["strategy"]: row for row in outcome.new}, file


def labels(tiny, runs, asked, file, **options):
    """What a sweep ran, and what it had to say."""
    ran, said = [], []
    sweep(*tiny, runs, asked, file, starts=lambda run, *_: ran.append(run.label), notice=said.append, **options)
    return ran, said


def first_records(count=LIMIT):
    return pq.read_table(tasks_path() / "scenes.parquet").to_pylist()[:count]


@torch.no_grad()
def ask(tiny, record):
    """The answer to one record, and the log-probabilities of its first token, by nothing but transformers."""
    model, processor = tiny
    content = [{"type": "image"}, {"type": "text", "text": record["question"]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = Image.open(io.BytesIO(record["image"]["bytes"]))
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return processor.decode(ids, skip_special_tokens=True).strip(), model(**inputs).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("name", ["none", "fastv", "pool"])
def test_a_row_is_what_counting_by_hand_gives(tiny, made, name):
    records, row = first_records(), made[0][name]
    untouched = [ask(tiny, record) for record in records]
    answers, tokens, share = untouched, [144.0], 1.0
    if name != "none":
        with sl.apply(tiny[0], name, keep=0.25) as run:
            answers = [ask(tiny, record) for record in records]
        tokens = [report.average_tokens for report in run.reports]
        share = sum(r.flops_after.total for r in run.reports) / sum(r.flops_before.total for r in run.reports)
    right = [answer == record["answer"] for (answer, _), record in zip(answers, records, strict=True)]
    accuracy = row["scores"]["seeless_scenes"]["accuracy"]
    assert (accuracy["value"], accuracy["n"]) == (pytest.approx(sum(right) / LIMIT), LIMIT)
    assert (accuracy["low"], accuracy["high"]) == pytest.approx(wilson(sum(right), LIMIT))
    for kind in {record["kind"] for record in records}:
        own = [hit for hit, record in zip(right, records, strict=True) if record["kind"] == kind]
        assert row["scores"]["seeless_scenes"][kind]["value"] == pytest.approx(fmean(own))
    same = [answer == own for (answer, _), (own, _) in zip(answers, untouched, strict=True)]
    assert row["loyalty"]["agreement"]["value"] == pytest.approx(fmean(same))
    apart = [(p.exp() * (p - q)).sum().item() for (_, q), (_, p) in zip(answers, untouched, strict=True)]
    assert row["loyalty"]["kl"] == pytest.approx(fmean(apart), abs=1e-4) and row["loyalty"]["kl_n"] == LIMIT
    assert row["tokens"]["average"] == pytest.approx(fmean(tokens)) and row["tokens"]["before"] == 144
    assert row["flops"]["share"] == pytest.approx(share)


def test_the_untouched_model_is_loyal_to_itself(made):
    row = made[0]["none"]
    assert row["loyalty"]["agreement"]["value"] == 1 and row["loyalty"]["kl"] == 0
    assert row["flops"]["share"] == 1 and row["seconds"]["prefill_share"] == 1


def test_a_row_says_where_it_comes_from(made):
    row = made[0]["fastv"]
    assert row["command"] == "a test" and row["machine"] and set(row["versions"]) >= {"torch", "lmms_eval", "python"}
    assert row["fields"] == sl.get("fastv", keep=0.25).to_dict() and row["keep"] == 0.25
    assert row["seconds"]["prefill"] > 0 and json.loads(json.dumps(row)) == row
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert row["commit"] == (head.stdout.strip() or None)


@pytest.mark.parametrize(
    ("name", "reason"), [("evs", "dropped nothing"), ("cdpruner", "pass clip="), ("router", "no budget of its own")]
)
def test_what_cannot_run_is_a_row_without_numbers(made, name, reason):
    row = made[0][name]
    assert reason in row["refused"] and not {"scores", "tokens", "loyalty", "flops"} & set(row)


def test_a_finished_sweep_does_nothing_more(tiny, made, tmp_path):
    file = copied(made[1], tmp_path)
    before = file.read_bytes()
    ran, said = labels(tiny, plan(["fastv", "pool", "evs", "cdpruner", "router"], [0.25]), ASKED, file, resume=True)
    assert (ran, said, file.read_bytes()) == ([], [], before)


def test_a_file_with_rows_is_not_written_to_unless_told(tiny, made):
    with pytest.raises(InvalidRequest, match="--resume"):
        sweep(*tiny, plan(["uniform"], [0.25]), ASKED, made[1])


def test_the_reference_is_kept_and_a_stale_one_is_noticed(tiny, made, tmp_path):
    file = copied(made[1], tmp_path)
    ran, said = labels(tiny, plan(["uniform"], [0.5]), ASKED, file, resume=True)
    assert (ran, said) == (["uniform at 0.5"], [])
    rows, _ = read_rows(file)
    assert rows[-1]["loyalty"]["agreement"]["n"] == LIMIT and rows[-1]["seconds"]["prefill_share"] is None
    other = Asked("tiny", ["seeless_scenes"], limit=3, batch_size=4)
    ran, said = labels(tiny, plan(["uniform"], [0.25]), other, file, resume=True)
    assert ran == ["none", "uniform at 0.25"] and said == []  # another limit is another run of the untouched model, too
    ran, said = labels(tiny, plan(["uniform"], [0.11]), ASKED, file, resume=True)
    assert ran == ["none", "uniform at 0.11"] and "limit 3, now 8" in said[0]
    rows, broken = read_rows(file)
    assert broken == [] and len({key_of(row) for row in rows}) == len(rows)  # nothing twice


def test_other_weights_are_another_model(tiny, made, tmp_path):
    model, processor = seeless.tiny.load_tiny()
    assert fingerprint(model) == fingerprint(tiny[0])
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 0.5
    assert fingerprint(model) != fingerprint(tiny[0])
    file = copied(made[1], tmp_path)
    ran, _ = labels((model, processor), plan(["pool"], [0.25]), ASKED, file, resume=True)
    assert ran == ["none", "pool at 0.25"]


# A sweep of seven runs that is killed without warning in the middle of the fourth.
KILLED = """
import os, signal, sys
from pathlib import Path
from seeless.eval.sweep import Asked, plan, sweep
from seeless.tiny import load_tiny

model, processor = load_tiny()
started, forwards = [], []

def forward(*_):
    forwards.append(len(started))
    if forwards.count(4) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

model.register_forward_pre_hook(forward)
asked = Asked("tiny", ["seeless_scenes"], limit=8, batch_size=4)
runs = plan(["uniform", "random"], [0.5, 0.25, 0.1])
sweep(model, processor, runs, asked, Path(sys.argv[1]), starts=lambda run, *_: started.append(run))
"""


def test_a_killed_sweep_goes_on_without_repeating_or_losing_a_run(tiny, tmp_path):
    """Killed without warning in the middle of a run, and a line cut short on top of it."""
    file = tmp_path / "sweep.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-4000:]
    before, broken = read_rows(file)
    assert len(before) == 3 and broken == []
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])
    lost = before[-1]

    asked = Asked("tiny", ["seeless_scenes"], limit=8, batch_size=4)
    runs = plan(["uniform", "random"], [0.5, 0.25, 0.1])
    ran, said = labels(tiny, runs, asked, file, resume=True)
    assert len(ran) == 7 - len(before) + 1 and f"line {len(lines)}: no JSON" in said[0]
    rows, broken = read_rows(file)
    names = [(row["strategy"], row["keep"]) for row in rows]
    assert sorted(names) == sorted((run.name, run.keep) for run in runs) and len(broken) == 1
    assert (lost["strategy"], lost["keep"]) == names[len(before) - 1] or lost["strategy"] == "none"
    assert rows[: len(before) - 1] == before[:-1]


FAULTS = {  # what is wrong with a record, and what is said of it
    "UnidentifiedImageError": {"image": {"bytes": b"no picture", "path": None}},
    "OSError": {"image": {"bytes": first_records(1)[0]["image"]["bytes"][:2000], "path": None}},
    "has no image": {"image": None},
    "has no question": {"question": None},
    "has no answer, no choices": {"choices": [], "answer": None},
    "the right option is number 9": {"label": 9},
}


def test_broken_records_are_named_and_counted(tiny, tmp_path):
    folder = tmp_path / "tasks"
    shutil.copytree(tasks_path(), folder, ignore=shutil.ignore_patterns("__pycache__", "__init__.py"))
    for name in ("seeless_scenes", "seeless_scenes_choice"):
        text = (folder / f"{name}.yaml").read_text().replace(f"task: {name}", f"task: spoiled_{name}")
        (folder / f"{name}.yaml").write_text(text.replace("tag: seeless_offline", "tag: spoiled"))
    table = pq.read_table(folder / "scenes.parquet")
    rows = table.to_pylist()[: len(FAULTS) + 2]
    for number, changes in enumerate(FAULTS.values(), 1):
        rows[number] |= changes
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "scenes.parquet")
    for name in ("spoiled_seeless_scenes", "spoiled_seeless_scenes_choice"):
        asked = Asked("tiny", [name], batch_size=4, include_path=(folder,))
        with pytest.raises(sl.SeelessError, match=f"{len(FAULTS)} documents cannot be read") as error:
            sweep(*tiny, plan(["pool"], [0.25]), asked, tmp_path / "sweep.jsonl")
        for number, reason in enumerate(FAULTS, 1):
            (line,) = (line for line in str(error.value).splitlines() if f"{name}, document {number}:" in line)
            assert reason in line
        assert read_rows(tmp_path / "sweep.jsonl") == ([], [])


def copied(file, folder):
    shutil.copy(file, folder / file.name)
    shutil.copy(reference_of(file), folder / reference_of(file).name)
    return folder / file.name
