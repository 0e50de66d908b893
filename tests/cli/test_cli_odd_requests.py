"""Requests that no command can meet, and pictures, questions and files that somebody will give: a sentence for each."""

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from PIL import Image
from saved_models import save_llava

from seeless.tiny import load_tiny
from seeless.train import write_scenes
from stub_lmms_eval import write_stub
from video_files import write_videos


@pytest.fixture
def stub(tmp_path, monkeypatch):
    folder = write_stub(tmp_path / "stub")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delitem(sys.modules, "lmms_eval", raising=False)
    importlib.invalidate_caches()
    return folder


@pytest.fixture
def refusing(monkeypatch):
    """The embedded model's processor refuses tall pictures, as Qwen's does."""
    _, processor = load_tiny()
    for cls in (type(processor), type(processor.image_processor)):
        call = cls.__call__

        def checked(self, images=None, *arguments, call=call, **options):
            flat = [each for one in images or [] for each in (one if isinstance(one, list) else [one])]
            if any(each.height > 200 * each.width for each in flat):
                raise ValueError("absolute aspect ratio must be smaller than 200, got 300.0")
            return call(self, images, *arguments, **options)

        monkeypatch.setattr(cls, "__call__", checked)


def sentence(outcome, *parts):
    assert outcome.code and outcome.out == "" and outcome.err.startswith("error: "), outcome
    assert outcome.err.count("\n") == 1 and len(outcome.err) < 1000
    assert all(part in outcome.err for part in parts), outcome.err


def test_a_picture_that_the_processor_refuses(seeless, tmp_path, refusing):
    Image.new("RGB", (1, 300)).save(tmp_path / "tall.png")
    Image.new("RGB", (96, 96)).save(tmp_path / "good.png")
    for images in (["tall.png"], ["good.png", "tall.png"]):
        options = [word for image in images for word in ("--image", image)]
        outcome = seeless("run", *options, "--repeats", 0)
        sentence(outcome, "'tall.png'", "absolute aspect ratio")
        assert outcome.code == 5 and "good.png" not in outcome.err


@pytest.mark.parametrize("ask", ["<image>", "what is in <image> here?", "x" * 20_000 + "<image>"])
def test_a_question_with_the_models_own_placeholder(seeless, ask):
    sentence(seeless("run", "--ask", ask, "--repeats", 0), "<image>", "leave it out")


@pytest.mark.parametrize("ask", ["\udcff", "caf\udce9?"])
def test_a_question_that_is_no_text(seeless, ask):
    sentence(seeless("run", "--ask", ask, "--repeats", 0), "no UTF-8")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--seed", 10**20], "--seed"),
        (["--seed", -1], "--seed"),
        (["--strategy", "random", "--seed", 1, "--random.seed", 10**20], "seed=100000000000000000000"),
        (["--strategy", "sparsevlm", "--sparsevlm.seed", 10**20], "seed=100000000000000000000"),
        (["--keep", "nan"], "--keep nan"),
        (["--keep", "inf"], "--keep inf"),
        (["--keep", "0.5,nan", "--layer", "2,4"], "--keep 0.5,nan"),
        (["--threshold", "-inf"], "--threshold -inf"),
        (["--strategy", "vtr:fastv", "--keep-ratio", "nan"], "--keep-ratio nan"),
        (["--strategy", "vtr:fastv", "--score-threshold", "inf"], "--score-threshold inf"),
        (["--keep", "1" * 5000], "is not possible"),
        (["--model", "x" * 28_000], "cannot load"),
        (["--model", "./" + "x" * 28_000], "no such folder"),
        (["--save-overlay", "file/kept.png"], "no folder"),
        (["--save-overlay", "folder.png"], "it is no file"),
        (["--save-overlay", "full.png"], "it is no file"),
        (["--save-overlay", "x" * 300 + ".png"], "File name too long"),
        (["--save-overlay", "kept.pcd"], "no picture format"),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else "",
)
def test_what_run_cannot_do_is_said_before_a_model_is_loaded(seeless, tmp_path, monkeypatch, arguments, part):
    def load(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("seeless.cli.run.load_model", load)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "full.png").symlink_to("/dev/full")
    outcome = seeless("run", *arguments)
    assert outcome.code and outcome.out == "", outcome
    assert part in " ".join(outcome.err.replace("│", " ").split()) and "Traceback" not in outcome.err
    assert len(outcome.err) < 2000


BUDGETS = [
    (["--keep", 100_000], "keep=100000, but the image has 144 visual tokens; use --keep 1.0 to keep all"),
    (["--keep", 145], "keep=145, but the image has 144"),
    (["--keep", 145, "--scope", "image"], "keep=145, but the image has 144"),
    (["--keep", "145,9", "--layer", "2,4"], "keep=145, but the image has 144"),
]


@pytest.mark.parametrize(("budget", "part"), BUDGETS)
def test_more_tokens_than_the_picture_has(seeless, stub, tmp_path, budget, part):
    for verb in ([], ["--dry-run"]):
        outcome = seeless("eval", "--model", "tiny", "--strategy", "fastv", *budget, *verb)
        sentence(outcome, part)
        assert outcome.code == 2
    assert seeless("eval", "--model", "tiny", "--strategy", "fastv", "--keep", 144, "--dry-run").code == 0


def test_tasks_that_may_have_several_pictures(seeless, stub):
    """What is ranked together over all pictures of a prompt may be more than one has, if the context holds it."""
    call = ["eval", "--model", "tiny", "--strategy", "fastv", "--tasks", "mme", "--dry-run"]
    assert seeless(*call, "--keep", 200).code == 0
    sentence(seeless(*call, "--keep", 200, "--scope", "image"), "keep=200, but the image has 144")
    sentence(seeless(*call, "--keep", 100_000), "keep=100000, but the longest prompt of this model has 2048")


def test_budgets_of_another_model(seeless, stub, tmp_path):
    folder = save_llava(tmp_path / "model")
    sentence(seeless("eval", "--model", folder, "--strategy", "pool", "--keep", 999, "--tasks", "scenes"), "has 144")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("scene", "did you mean scenes or scenes_choice?"),
        ("scenes_ch", "did you mean scenes_choice?"),
        ("sceens", "did you mean scenes"),
        ("seeless", "did you mean seeless_scenes or seeless_scenes_choice or seeless_drawings?"),
        ("mm", "did you mean mme?"),
        ("mmee", "did you mean mme?"),
        ("zzz", "lmms-eval tasks list"),
    ],
)
def test_near_names_of_tasks(seeless, stub, asked, hint):
    sentence(seeless("eval", "--model", "tiny", "--tasks", asked), hint)


@pytest.mark.parametrize("names", [["a.yaml"], ["a.yaml", "b.yaml"]])
def test_a_task_file_that_includes_itself(seeless, stub, tmp_path, names):
    own = tmp_path / "own"
    own.mkdir()
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        (own / name).write_text(f"task: {name[0]}\ninclude: {other}\noutput_type: generate_until\n")
    call = ["eval", "--model", "tiny", "--include-path", own, "--dry-run", "--tasks"]
    sentence(seeless(*call, "a"), "the task 'a' cannot be run", "includes")
    assert seeless(*call, "mme").code == 0  # which has nothing to do with it


def test_a_group_of_tasks_that_is_a_member_of_itself(seeless, stub, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.yaml").write_text("group: round\ntask: [mme, round]\n")
    (own / "b.yaml").write_text("group: 3\ntask: {a: b}\ntag: 5\ninclude: 7\n")  # odd, and nobody's business
    call = ["eval", "--model", "tiny", "--include-path", own, "--dry-run", "--tasks"]
    sentence(seeless(*call, "round"), "'round' is a member of itself")
    assert seeless(*call, "mme").code == 0


@pytest.mark.parametrize("limit", ["inf", "nan", "-1", "0", "2.5", "many", "1" * 5000])
def test_limits_that_are_no_numbers_of_questions(seeless, stub, limit):
    outcome = seeless("eval", "--model", "tiny", "--limit", limit, "--dry-run")
    assert outcome.code == 2 and outcome.out == "" and len(outcome.err) < 2000
    assert "--limit" in outcome.err and "share below 1" in " ".join(outcome.err.replace("│", " ").split())
    for limit in ("3", "0.5"):
        assert f"--limit {limit}" in seeless("eval", "--model", "tiny", "--limit", limit, "--dry-run").out


@pytest.mark.parametrize("arguments", [["run", "--strategy"], ["info"], ["eval", "--model", "tiny", "--method"]])
def test_endless_names(seeless, arguments):
    sentence(seeless(*arguments, "x" * 28_000), "28002 characters")


@pytest.mark.parametrize("output", ["file", "file/x", "x" * 300])
def test_an_evaluation_whose_output_cannot_be_written(seeless, stub, tmp_path, output):
    (tmp_path / "file").touch()
    sentence(seeless("eval", "--model", "tiny", "--tasks", "mme", "--output", output), "cannot write")


@contextmanager
def held(path, how):
    """Inside, another process holds a file (`claimed`) or folder (`claimed_folder`)."""
    code = f"""if True:
        import time; from pathlib import Path; from seeless.outputs import {how}
        with {how}(Path({str(path)!r})):
            print(1, flush=True)
            time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.kill()


def test_two_evaluations_in_one_folder(seeless, stub, tmp_path):
    with held(tmp_path / "out", "claimed_folder"):
        outcome = seeless("eval", "--model", "tiny", "--tasks", "mme", "--output", "out")
        sentence(outcome, "another process writes to out")
    assert seeless("eval", "--model", "tiny", "--tasks", "mme", "--output", "out").code == 0


class TestVideos:
    """Questions about videos."""

    @pytest.fixture(autouse=True)
    def _needs_av(self):
        pytest.importorskip("av")

    def test_answers_and_names_with_other_line_ends(self, seeless, tmp_path):
        flags = write_videos(tmp_path)
        for name, key in (("q.json", "question"), ("a.json", "answer")):
            entries = json.loads((tmp_path / name).read_text())
            entries[1][key] = "a\u2028b\u2029c\x85d?"
            text = "\n".join(json.dumps(each, ensure_ascii=False) for each in entries)
            (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
        call = ["eval", "--model", "tiny", *flags, "--frames", 1, "--output", "out", "--num-chunks", 2]
        for index in (0, 1):
            outcome = seeless(*call, "--chunk-idx", index)
            assert outcome.code == 0, outcome.err
        assert "4 of 4" in outcome.out
        again = seeless(*call, "--chunk-idx", 0)
        assert again.code == 0 and "2 of 2 questions are answered already" in again.err

    def test_a_video_that_the_processor_refuses_is_one_question_less(self, seeless, tmp_path, monkeypatch):
        flags = write_videos(tmp_path)
        from seeless.integrations.batches import Batches

        processed = Batches._processed

        def refuse(self, prompts):
            if any("odd" in part.get("text", "") for prompt in prompts for part in prompt.parts):
                raise ValueError("absolute aspect ratio must be smaller than 200")
            return processed(self, prompts)

        monkeypatch.setattr(Batches, "_processed", refuse)
        entries = json.loads((tmp_path / "q.json").read_text())
        entries[2]["question"] = "how odd?"
        (tmp_path / "q.json").write_text(json.dumps(entries))
        outcome = seeless("eval", "--model", "tiny", *flags, "--frames", 1, "--output", "out")
        assert outcome.code == 1 and "3 of 4" in outcome.out and "1 of 4 questions have no answer" in outcome.err
        (line,) = (tmp_path / "out/predictions.errors.jsonl").read_text().split("\n")[:-1]
        assert json.loads(line)["id"] == "q2" and "aspect ratio" in json.loads(line)["error"]

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ('[{"video_name": "a", "question_id": 1, "question": "\\ud800"}]', "characters that are none"),
            ('[{"video_name": "a", "question_id": NaN, "question": "?"}]', "record 1 of q.json is no JSON: NaN"),
            ('{"question": "?"}', "has no 'question_id'"),
            ('{"a": 1}', "one JSON object, not a list"),
            ("[" * 100_000, "nest too deeply"),
            ("[1]", "record 1 of q.json is no JSON object"),
            ('[{"video_name": "a", "question_id": %s, "question": "?"}]' % ("1" * 5000), "4300 digits"),
        ],
    )
    def test_odd_questions(self, seeless, tmp_path, content, part):
        flags = write_videos(tmp_path)
        (tmp_path / "q.json").write_text(content)
        (tmp_path / "a.json").write_text('[{"answer": "1"}]')
        sentence(seeless("eval", "--model", "tiny", *flags), part)

    def test_a_video_name_that_no_file_has(self, seeless, tmp_path):
        flags = write_videos(tmp_path, more=["x" * 28_000])
        outcome = seeless("eval", "--model", "tiny", *flags, "--frames", 1, "--output", "out")
        assert outcome.code == 1 and "4 of 5" in outcome.out and len(outcome.err) < 3000
        assert "1 of 5 questions have no answer" in outcome.err

    def test_ctrl_c_says_how_to_go_on(self, seeless, tmp_path, monkeypatch):
        def interrupted(*arguments):
            raise KeyboardInterrupt

        flags = write_videos(tmp_path)
        monkeypatch.setattr("seeless.cli.video_questions._ask", interrupted)
        outcome = seeless("eval", "--model", "tiny", *flags, "--output", "out")
        assert outcome.code == 130 and "the same command goes on from there" in outcome.err.splitlines()[-1]

    def test_two_commands_on_one_file(self, seeless, tmp_path):
        flags = write_videos(tmp_path)
        with held(tmp_path / "out/predictions.jsonl", "claimed"):
            sentence(seeless("eval", "--model", "tiny", *flags, "--output", "out"), "another process writes to")

    def test_predictions_that_cannot_be_written(self, seeless, tmp_path):
        flags = write_videos(tmp_path)
        (tmp_path / "out").touch()
        sentence(seeless("eval", "--model", "tiny", *flags, "--output", "out"), "cannot write")


def as_process(tmp_path, arguments, **options):
    command = [sys.executable, "-m", "seeless.cli.main", *arguments]
    return subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--version"]], ids=" ".join)
def test_output_to_a_full_disk(tmp_path, arguments):
    with open("/dev/full", "w") as full:
        done = as_process(tmp_path, arguments, stdout=full)
    assert (done.returncode, done.stderr) == (1, b"error: cannot write the output: No space left on device\n")


def test_output_to_a_reader_that_has_gone(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = as_process(tmp_path, ["list"], stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_file_name_that_is_no_text(tmp_path, how):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (96, 96)).save(tmp_path / name)
    done = as_process(tmp_path, ["run", "--image", name, "--repeats", "0", *how], stdout=-1)
    assert done.returncode == 0, done.stderr
    assert b"caf\\udce9.png" in done.stdout
    if how:
        assert json.loads(done.stdout)["images"] == [name]


@pytest.mark.parametrize(("checkpoint", "said"), [(False, "no checkpoint to go on from"), (True, "checkpoint-2")])
def test_ctrl_c_in_training_says_how_to_go_on(seeless, tmp_path, monkeypatch, checkpoint, said):
    data = write_scenes(tmp_path / "data", 4)
    call = ["train", "--data", data, "--output", "run", "--steps", 2, "--save-every", 1]
    if checkpoint:
        assert seeless(*call).code == 0

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("seeless.cli.train._finetune", interrupted)
    outcome = seeless(*call, *(["--resume"] if checkpoint else []))
    assert outcome.code == 130 and outcome.err.splitlines()[-1].startswith("stopped; ") and said in outcome.err


def test_training_is_refused_before_a_model_is_loaded(seeless, tmp_path, monkeypatch):
    def load(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("seeless.cli.train.load_trainable", load)
    data = write_scenes(tmp_path / "data", 4)
    (tmp_path / "file").touch()
    for options, part in {
        ("--output", "file"): "no folder",
        ("--output", "file/x"): "cannot write",
        ("--output", "x" * 300): "File name too long",
        ("--lr", "inf"): "lr=inf",
        ("--seed", 10**20): "seed=",
    }.items():
        sentence(seeless("train", "--data", data, *options), part)
        sentence(seeless("train", *options), part)
