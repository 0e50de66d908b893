"""What task files say, read without lmms-eval."""

import pytest

from seeless.eval.errors import InvalidRequest
from seeless.eval.tasknames import TaskName, check_tasks, leaves, lmms_eval_folder, task_names


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "base": "output_type: multiple_choice\ntag: [family]\ndoc_to_visual: !function docs.see\n",
        "one": "include: base.yaml\ntask: one\n",
        "two": "include: [base.yaml]\ntask: two\noutput_type: generate_until\ntag: other\n",
        "all": "group: everything\ntask:\n  - one\n  - task: three\n    limit: 2\n  - other\n",
        "deep/three": "task: three\ngroup: old\noutput_type: generate_until\n",
        "class": "task: program\nclass: !function docs.Task\n",
        "broken": "task: [unclosed\n",
        "list": "- no\n- task\n",
    }.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_tasks_tags_and_groups(folder):
    known = task_names(folder)
    assert known["one"] == TaskName(choice=True) and known["two"] == TaskName()
    assert known["family"] == TaskName(("one",)) and known["other"] == TaskName(("two",))
    assert known["old"] == TaskName(("three",))
    assert known["everything"].members == ("one", "three", "other")
    assert set(known) == {"one", "two", "three", "program", "family", "other", "old", "everything"}


def test_leaves(folder):
    known = task_names(folder)
    assert set(leaves(["everything"], known)) == {"one", "three", "two"}
    assert set(leaves(["t*"], known)) == {"two", "three"}
    assert leaves(["one", "family"], known) == {"one": TaskName(choice=True)}


def test_the_first_folder_has_the_last_word(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("own")
    (own / "mine.yaml").write_text("task: one\noutput_type: generate_until\n")
    assert task_names(folder / "deep", own)["one"] == TaskName()
    assert task_names(own, folder)["one"] == TaskName() and task_names(folder, own)["one"].choice


def test_unknown_names(folder):
    known = task_names(folder)
    check_tasks(["one", "everything", "t*"], known)
    with pytest.raises(InvalidRequest, match="no task 'thre'; did you mean three"):
        check_tasks(["one", "thre"], known)
    with pytest.raises(InvalidRequest, match=r"no task 'x\*'; lmms-eval lists"):
        check_tasks(["x*"], known)


def test_lmms_evals_own():
    known = task_names(lmms_eval_folder() / "tasks")
    assert len(known) > 1500 and known["mme"] == TaskName() and known["pope"] == TaskName()
    assert any(task.choice for task in known.values())
    assert all(member in known for member in known["anet_qa"].members)
