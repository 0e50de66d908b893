"""The shipped tasks: what is in them, that lmms-eval loads them, and that they come from the script that is said to."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from seeless.eval import tasks_path
from seeless.eval.tasks import full_names
from seeless.tiny.scenes import COLOUR_NAMES, QUESTION_TYPES

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "training"))


@pytest.fixture(scope="module")
def records():
    return pq.read_table(tasks_path() / "scenes.parquet").to_pylist()


@pytest.fixture(scope="module")
def loaded():
    from lmms_eval.tasks import TaskManager, get_task_dict

    manager = TaskManager("ERROR", include_path=[str(tasks_path())], include_defaults=False, model_name="seeless")
    return get_task_dict(["seeless_offline"], manager, "simple")


def test_the_records_are_what_the_script_draws(records):
    import make_tasks

    drawn = make_tasks.records(count=60, seed=7)
    assert [{**row, "image": None} for row in records] == [{**row, "image": None} for row in drawn]
    for row, again in list(zip(records, drawn, strict=True))[::40]:  # pixels, not the bytes of one Pillow's encoder
        ours, theirs = (io.BytesIO(each["image"]["bytes"]) for each in (row, again))
        assert Image.open(ours).tobytes() == Image.open(theirs).tobytes()


def test_drawings_are_what_the_script_draws():
    import make_drawing_tasks

    from seeless.reader import KINDS

    records = pq.read_table(tasks_path() / "drawings.parquet").to_pylist()
    drawn = make_drawing_tasks.records(count=20, seed=7)
    assert [{**row, "image": None} for row in records] == [{**row, "image": None} for row in drawn]
    assert all(sum(row["kind"] == kind for row in records) == 20 for kind in KINDS)
    for row, again in list(zip(records, drawn, strict=True))[::20]:
        ours, theirs = (io.BytesIO(each["image"]["bytes"]) for each in (row, again))
        assert Image.open(ours).tobytes() == Image.open(theirs).tobytes()
        assert row["choices"][row["label"]] == row["answer"] and len(set(row["choices"])) == 4


def test_every_question_has_one_right_option(records):
    assert len(records) == 381 and min(sum(row["kind"] == kind for row in records) for kind in QUESTION_TYPES) >= 60
    for row in records:
        assert row["choices"][row["label"]] == row["answer"] and len(set(row["choices"])) == len(row["choices"]) >= 4
        if row["kind"] == "colour":
            assert set(row["choices"]) <= set(COLOUR_NAMES)
    assert len({row["label"] for row in records if row["kind"] == "digit"}) == 4  # the right one is anywhere


def test_lmms_eval_loads_them(loaded, records):
    assert set(loaded) == set(full_names(["scenes", "scenes_choice"]))
    for task in loaded.values():
        docs = task.test_docs()
        assert len(docs) == len(records)
        (picture,) = task.doc_to_visual(docs[5])
        assert picture.size == (96, 96) and picture.mode == "RGB"
        assert task.doc_to_text(docs[5]) == records[5]["question"]
        assert set(task.aggregation()) == {"accuracy", *QUESTION_TYPES}
    assert loaded["seeless_scenes_choice"].doc_to_choice(docs[5]) == records[5]["choices"]


def test_judges_of_both_tasks(loaded):
    generation, choice = loaded["seeless_scenes"], loaded["seeless_scenes_choice"]
    doc = generation.test_docs()[0]
    assert generation.process_results(doc, [doc["answer"]]) == {"accuracy": 1.0, doc["kind"]: 1.0}
    assert generation.process_results(doc, [doc["answer"] + " or 4"]) == {"accuracy": 0.0, doc["kind"]: 0.0}
    losses = [(float(i != doc["label"]), False) for i in range(len(doc["choices"]))]
    assert choice.process_results(doc, losses)["accuracy"] == 1.0
    assert choice.process_results(doc, [(1 - loss, False) for loss, _ in losses])["accuracy"] == 0.0


def test_scenes_are_held_out(records):
    from seeless.tiny.scenes import draw_scenes

    scenes = draw_scenes(50, torch.Generator().manual_seed(7), held_out=True)
    first = [(scene, question) for scene in scenes for question in scene.questions]
    for (scene, question), row in zip(first[:10], records, strict=False):
        assert question.text == row["question"]
        assert Image.open(io.BytesIO(row["image"]["bytes"])).tobytes() == scene.image.tobytes()


def test_short_names():
    assert full_names(["scenes_choice", "pope"]) == ["seeless_scenes_choice", "pope"]


def test_tasks_path_prints_the_folder():
    command = [sys.executable, "-m", "seeless.cli.main", "tasks-path"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tasks_path()


def test_the_wheel_carries_them(tmp_path):
    """And they are small enough to be carried."""
    pytest.importorskip("hatchling")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = ("scenes", "scenes_choice", "drawings", "drawings_choice")
    for name in (*(f"seeless_{task}.yaml" for task in shipped), "scenes.parquet", "drawings.parquet", "scenes.py"):
        assert f"seeless/eval/tasks/{name}" in names
    assert sum(file.stat().st_size for file in tasks_path().iterdir() if file.is_file()) < 10 * 2**20
