"""Results files found, checked and put into rows."""

import json

import pytest

from seeless.eval.errors import FailedEvaluation
from seeless.eval.outcome import Row, read_results, results_in, rows

FIGURES = {"visual_tokens": 63.0, "flops_share": 0.6, "prefill_seconds": 0.02}


def write(folder, tasks, date="1", answered=4, figures=None, **more):
    """A results file as lmms-eval writes it, of tasks with 8 questions."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "results": {task: {"alias": task, "acc,none": 0.5, "acc_stderr,none": 0.1} for task in tasks},
        "configs": {task: {} for task in tasks},
        "n-samples": {task: {"original": 8, "effective": 8} for task in tasks},
        "group_subtasks": {task: [] for task in tasks},
        "throughput": figures or {},
    }
    for key, value in more.items():
        results[key] |= value
    file = folder / f"{date}_results.json"
    file.write_text(json.dumps(results))
    for task in tasks:
        lines = [json.dumps({"doc_id": number % answered}) for number in range(answered + 1)]  # one twice
        (folder / f"{date}_samples_{task}.jsonl").write_text("\n".join(lines) + "\n")
    return file


def test_only_new_results_count(tmp_path):
    assert results_in(tmp_path / "missing") == set()
    write(tmp_path / "model", ["a"], "1")
    before = results_in(tmp_path)
    with pytest.raises(FailedEvaluation, match="wrote no results"):
        read_results(tmp_path, before, ["a"], 4)
    file = write(tmp_path / "model", ["a"], "2")
    assert read_results(tmp_path, before, ["a"], 4)[0] == file


@pytest.mark.parametrize(
    ("tasks", "limit", "message"),
    [
        (["a", "b"], 4, "no results for b"),
        (["a"], 5, "answers to 4 of 5 questions"),
        (["a"], 100, "answers to 4 of 8 questions"),
        (["a"], None, "answers to 4 of 8 questions"),
    ],
)
def test_incomplete_results(tmp_path, tasks, limit, message):
    write(tmp_path, ["a"])
    with pytest.raises(FailedEvaluation, match=message):
        read_results(tmp_path, set(), tasks, limit)


def test_broken_files(tmp_path):
    file = write(tmp_path, ["a"])
    (tmp_path / "1_samples_a.jsonl").unlink()
    with pytest.raises(FailedEvaluation, match="answers to a cannot be read"):
        read_results(tmp_path, set(), ["a"], 1)
    file.write_text("{")
    with pytest.raises(FailedEvaluation, match="cannot be read"):
        read_results(tmp_path, set(), ["a"], 1)


def test_a_metric_of_some_questions_counts_those(tmp_path):
    file = write(tmp_path, ["a"], results={"a": {"acc,none": 0.5, "digit,none": 1.0}})
    lines = [{"doc_id": 0, "acc": 1.0, "digit": 1.0}, {"doc_id": 1, "acc": 0.0}, {"doc_id": 2, "acc": 0.5}]
    (tmp_path / "1_samples_a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = {row.metric: row.samples for row in rows(file, json.loads(file.read_text()))}
    assert found == {"acc": 3, "digit": 1}


def test_rows_of_one_task(tmp_path):
    file = write(tmp_path, ["a"], figures={f"avg_{name}": value for name, value in FIGURES.items()})
    more = {"a": {"acc,none": float("nan"), "f1,none": "N/A"}}
    results = json.loads(file.read_text())
    assert rows(file, results) == [Row("a", "acc", 0.5, 4, **FIGURES)]
    results["results"] = more
    assert [row.value for row in rows(file, results)] == [None, None]


def test_rows_of_several_tasks_and_a_group(tmp_path):
    figures = {f"avg_a/{name}": value for name, value in FIGURES.items()} | {"avg_flops_share": 1.0}
    group = {"both": {"acc,none": 0.7}}
    file = write(tmp_path, ["a", "b"], figures=figures, results=group, group_subtasks={"both": ["a", "b"]})
    assert rows(file, json.loads(file.read_text())) == [
        Row("a", "acc", 0.5, 4, **FIGURES),
        Row("b", "acc", 0.5, 4),
        Row("both", "acc", 0.7, 8),
    ]
