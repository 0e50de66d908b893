"""`seeless eval` on tasks: what can be asked, what lmms-eval is told, what becomes of its failures, and a real run."""

import importlib
import json
import shlex
import sys

import pytest

from seeless.eval.tasks import tasks_path
from stub_lmms_eval import write_stub


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A stand-in for lmms-eval, in this process and in those it starts."""
    folder = write_stub(tmp_path / "stub")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delitem(sys.modules, "lmms_eval", raising=False)
    importlib.invalidate_caches()
    return folder


def dry_run(seeless, *arguments):
    """Environment and words of the command."""
    outcome = seeless("eval", *arguments, "--dry-run")
    assert outcome.code == 0, outcome.err
    words = shlex.split(outcome.out)
    start = words.index(sys.executable)
    return dict(word.split("=", 1) for word in words[:start]), words[start:]


def told(words):
    """The model arguments in a command."""
    return words[words.index("--model_args") + 1]


def test_priortrs_command_line(seeless, stub, tmp_path):
    environment, words = dry_run(
        seeless,
        *shlex.split(
            "--model qwen3vl --method priortr --tasks mme,pope --keep-ratio 0.2222 --prune-layer 3 --gpus 0,1 "
            "--num-processes 2 --limit 8 --param head_aggregation=max --port 29501 --cache-dir hub --batch-size 2 "
            "--extra dtype=float16"
        ),
    )
    assert environment == {
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }
    assert words[1:7] == ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29501", "-m", "lmms_eval"]
    assert words[words.index("--model") + 1] == "qwen3_vl_vtr"
    assert told(words) == (
        "pretrained=Qwen/Qwen3-VL-8B-Instruct,strategy=priortr,keep_ratio=0.2222,prune_layer=3,head_aggregation=max,"
        "dtype=float16"
    )
    for name, value in {"--tasks": "mme,pope", "--limit": "8", "--batch_size": "2"}.items():
        assert words[words.index(name) + 1] == value
    assert words[words.index("--output_path") + 1] == "eval_results/qwen3vl_priortr_r0.2222_mme-pope"
    assert "--log_samples" in words and "--force_simple" not in words
    assert not (tmp_path / "eval_results").exists()


@pytest.mark.parametrize(
    ("arguments", "model", "arguments_told"),
    [
        ("--model llava --method baseline", "llava_vtr", "pretrained=llava-hf/llava-1.5-7b-hf,strategy=baseline"),
        (
            "--model llava --pretrained liuhaotian/llava-v1.5-13b --method priortr --keep-tokens 64",
            "llava_vtr",
            "pretrained=llava-hf/llava-1.5-13b-hf,strategy=priortr,keep_tokens=64",
        ),
        (
            "--model qwen3vl --method sparsevlm --keep_ratio 0.5 --prune_layer 2,6",
            "qwen3_vl_vtr",
            "pretrained=Qwen/Qwen3-VL-8B-Instruct,strategy=sparsevlm,keep_ratio=0.5,prune_layer=[2;6],token_merge=True",
        ),
        (
            "--model internvl --method clse --param ref_layers=1,11 --param max_num=12",
            "internvl_vtr",
            "pretrained=OpenGVLab/InternVL3-8B-hf,strategy=clse,ref_layers=[1;11],max_num=12",
        ),
        ("--model a/b --method fastv", "seeless", "pretrained=a/b,strategy=vtr:fastv"),
        ("--model a/b", "seeless", "pretrained=a/b,strategy=none"),
        (
            "--model video-llava --strategy pyramiddrop --keep .5,.25 --layer 8,16 --param max_frames=4",
            "seeless",
            "pretrained=LanguageBind/Video-LLaVA-7B-hf,strategy=pyramiddrop,keep=[0.5;0.25],layer=[8;16],max_frames=4",
        ),
        (
            "--model tiny --strategy vtr:fastv --keep-tokens 9",
            "seeless",
            "pretrained=tiny,strategy=vtr:fastv,keep_tokens=9",
        ),
        ("--model tiny --strategy dart", "seeless", "pretrained=tiny,strategy=dart,keep=0.25"),
    ],
)
def test_models_and_methods(seeless, stub, arguments, model, arguments_told):
    _, words = dry_run(seeless, *shlex.split(arguments), "--tasks", "mme")
    assert words[words.index("--model") + 1] == model and told(words) == arguments_told


def test_plugins_and_folders_of_tasks(seeless, stub, guest, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("task: mine\noutput_type: loglikelihood\n")
    call = ["--model", "tiny", "--plugin", guest, "--method", "myguest", "--param", "my_temperature=0.5"]
    _, words = dry_run(seeless, *call, "--tasks", "mme,mine", "--include-path", own)
    assert told(words) == f"pretrained=tiny,plugin={guest},strategy=myguest,my_temperature=0.5"
    assert words[words.index("--include_path") + 1] == str(own) and "--force_simple" in words
    for tasks, simple in (("mme", False), ("both", True), ("cho*", True), ("scenes", False), ("scenes_choice", True)):
        _, words = dry_run(seeless, "--model", "tiny", "--tasks", tasks)
        assert ("--force_simple" in words) == simple and words[words.index("--include_path") + 1] == str(tasks_path())
    _, words = dry_run(seeless, "--model", "tiny")
    assert words[words.index("--tasks") + 1] == "seeless_scenes,seeless_scenes_choice"


def test_vispruner_has_no_layer(seeless, stub):
    call = [
        "eval",
        "--model",
        "qwen3vl",
        "--method",
        "vispruner",
        "--keep-ratio",
        "0.5",
        "--prune-layer",
        "3",
        "--tasks",
        "mme",
        "--dry-run",
    ]
    outcome = seeless(*call)
    assert outcome.code == 0 and "prune_layer" not in outcome.out and "--prune-layer is left out" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--tasks mme", ["say which --model", "qwen3vl"]),
        ("--model qwen3v --tasks mme", ["'qwen3v'", "did you mean qwen3vl"]),
        ("--model llava --pretrained a,b --tasks mme", ["no comma"]),
        ("--model a/b --pretrained c/d --tasks mme", ["short name"]),
        ("--model tiny --pretrained c/d", ["embedded model"]),
        ("--model llava", ["say which --tasks", "scenes"]),
        ("--model llava --tasks mmee", ["no task 'mmee'", "did you mean mme"]),
        ("--model tiny --tasks scenes --include-path .", ["one folder"]),
        ("--model tiny --tasks mme --include-path missing", ["no folder"]),
        ("--model llava --method priort --tasks mme", ["no method is called 'priort'", "priortr"]),
        ("--model llava --method priortr --strategy fastv --tasks mme", ["exclude each other"]),
        ("--model llava --method priortr --keep-tokens 3 --keep-ratio 1 --tasks mme", ["exclude each other"]),
        ("--model llava --method baseline --keep-tokens 3 --tasks mme", ["leave out --keep-tokens"]),
        ("--model llava --method priortr --keep-tokens x --tasks mme", ["--keep-tokens=x", "whole number"]),
        ("--model llava --method priortr --keep-ratio 2 --tasks mme", ["keep_ratio=2.0", "from 0 to 1"]),
        ("--model llava --method priortr --keep 3 --tasks mme", ["--keep is no flag of --method", "--param"]),
        ("--model llava --method priortr --param head_aggregation --tasks mme", ["NAME=VALUE"]),
        ("--model llava --method priortr --param head_agregation=max --tasks mme", ["did you mean head_aggregation"]),
        ("--model llava --method priortr --param head_aggregation=min --tasks mme", ["mean or max"]),
        ("--model llava --method priortr --param token_merge=True --tasks mme", ["belongs to sparsevlm"]),
        ("--model llava --method priortr --param keep_ratio=1 --tasks mme", ["--keep-ratio 1"]),
        ("--model llava --method priortr --param max_num=6 --tasks mme", ["no parameter 'max_num'"]),
        ("--model llava --strategy fastvv --tasks mme", ["did you mean fastv"]),
        ("--model llava --strategy fastv --keeep 3 --tasks mme", ["'keeep'; did you mean keep"]),
        ("--model llava --strategy fastv --keep-tokens 3 --tasks mme", ["no field 'keep_tokens'"]),
        ("--model llava --keep 3 --tasks mme", ["--keep is no flag", "no strategy is named"]),
        ("--model tiny --strategy fastv --layer 99", ["8 layers"]),
        ("--model tiny --env internvl", ["--env internvl", "no environments"]),
        ("--model tiny --gpus 0,x", ["device numbers"]),
        ("--model tiny --gpus 0 --num-processes 2", ["needs as many --gpus"]),
        ("--model tiny --limit 0", ["--limit"]),
        ("--model tiny --limit 2.5", ["--limit 2.5 is not possible", "a share below 1"]),
        ("--model tiny --method mymethod", ["no method is called 'mymethod'", "given as plugin"]),
        ("--model tiny --strategy mymethod", ["no strategy is called 'mymethod'", "given as plugin"]),
        ("--model tiny --vtr_enabled --method fastv", ["--method fastv and --vtr_enabled exclude each other"]),
        ("--model tiny --vtr_enabled --vtr_keep_tokns 9", ["--vtr_keep_tokns is no flag", "no 'keep_tokns'"]),
        ("--model tiny --vtr_enabled --vtr_keep_tokens 9 --keep-tokens 9", ["say the same twice"]),
        ("--model tiny --vtr_enabled --vtr_keep_tokens", ["--vtr_keep_tokens needs a value"]),
        ("--model tiny --vtr_enabled maybe", ["--vtr_enabled maybe is not possible"]),
        ("--model tiny --vtr_enabled --vtr_strategy fast", ["no method is called 'fast'", "fastv"]),
        ("--model tiny --video-dir .", ["--gt-question is missing"]),
        ("--model tiny --video-dir . --tasks mme", ["--tasks is for"]),
        ("--model tiny --num-samples 3", ["--num-samples"]),
        ("--describe qwen3vl fast", ["no method is called 'fast'", "fastv"]),
    ],
)
def test_impossible_requests(seeless, stub, tmp_path, arguments, parts):
    outcome = seeless("eval", *shlex.split(arguments))
    assert outcome.code == 2 and outcome.out == "", outcome
    assert all(part in " ".join(outcome.err.replace("│", " ").split()) for part in parts), outcome.err
    assert not (tmp_path / "eval_results").exists()


def test_the_share_of_a_task(seeless, stub):
    _, words = dry_run(seeless, *shlex.split("--model tiny --limit 0.25"))
    assert words[words.index("--limit") + 1] == "0.25"
    _, words = dry_run(seeless, *shlex.split("--model tiny --limit 8"))
    assert words[words.index("--limit") + 1] == "8"


def test_flags_of_the_video_scripts_on_tasks(seeless, stub):
    """The defaults are then those of the wrapper, not of the script."""
    flags = "--vtr_enabled --vtr_strategy fastv --vtr_prune_layer 2 --vtr-keep-tokens 36 --vtr_clse_temp 0.2"
    _, words = dry_run(seeless, *shlex.split(f"--model_path tiny {flags}"))
    assert told(words) == "pretrained=tiny,strategy=fastv,keep_tokens=36,prune_layer=2"
    outcome = seeless("eval", "--model", "tiny", *shlex.split(flags), "--dry-run")
    assert "--vtr_clse_temp is left out: fastv does not have it" in outcome.err
    _, words = dry_run(seeless, *shlex.split("--model tiny --vtr_enabled --vtr_strategy clse --vtr_ref_layers 0 1"))
    assert told(words) == "pretrained=tiny,strategy=clse,ref_layers=[0;1]"
    outcome = seeless("eval", "--model", "tiny", "--vtr_strategy", "fastv", "--dry-run")
    assert "without --vtr_enabled the model stays as it is" in outcome.err and "strategy=baseline" in outcome.out


def test_without_lmms_eval(seeless, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "lmms_eval" else find(name, *rest)
    )
    outcome = seeless("eval", "--model", "tiny")
    assert outcome.code == 3 and 'pip install "seeless[eval]"' in outcome.err


def test_list_and_describe(seeless):
    listed = seeless("eval", "--list")
    assert listed.code == 0
    for part in ("OpenGVLab/InternVL2_5-8B", "qwen3_vl_vtr", "sparsevlm", "baseline", "pyramiddrop"):
        assert part in listed.out
    described = seeless("eval", "--describe", "internvl", "vispruner")
    assert described.code == 0 and "2412.01818" in described.out
    for part in ("important_ratio", "max_num", "whole number", "--keep-ratio"):
        assert part in described.out
    assert "--prune-layer" not in described.out and "head_aggregation" not in described.out


def test_a_run(seeless, stub, tmp_path):
    call = ["eval", "--model", "tiny", "--tasks", "mme,pope", "--gpus", 3, "--output", "out", "--limit", 3]
    outcome = seeless(*call)
    assert outcome.code == 0 and "all done" in outcome.err and "all done" not in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["mme", "acc", "0.5", "3", "0.2", "25", "%", "250.0", "ms"] in lines
    assert "all done" in (tmp_path / "out/seeless-eval.log").read_text()
    started = json.loads((tmp_path / "out/model/started.json").read_text())
    assert started["environment"]["CUDA_VISIBLE_DEVICES"] == "3"
    (tmp_path / "out/model/1_results.json").unlink()
    again = seeless(*call, "--json")
    data = json.loads(again.out)
    assert data["rows"][0]["flops_share"] == 0.25 and data["results"].endswith("1_results.json")
    assert shlex.split(data["command"])[-len(started["argv"]) :] == started["argv"]


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("die", ["exit code 9", "ValueError: nothing works"]),
        ("swallow", ["wrote no results", "layer 99 is outside"]),
        ("hurry", ["answers to 1 of 3 questions"]),
    ],
)
def test_failures_are_failures(seeless, stub, what, parts):
    outcome = seeless("eval", "--model", "tiny", "--tasks", "mme", "--output", "out", "--extra", f"do={what}")
    assert outcome.code == 1 and outcome.out == ""
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ") and all(part in last for part in [*parts, "seeless-eval.log"])


def test_the_embedded_model_on_the_shipped_tasks(seeless):
    outcome = seeless("eval", "--model", "tiny", "--method", "priortr", "--keep-tokens", 36, "--limit", 4, "--json")
    assert outcome.code == 0, outcome.err
    rows = {(row["task"], row["metric"]): row for row in json.loads(outcome.out)["rows"]}
    for task in ("seeless_scenes", "seeless_scenes_choice"):
        row = rows[task, "accuracy"]
        assert row["samples"] == 4 and row["value"] >= 0.5
        assert row["visual_tokens"] == (3 * 144 + 5 * 36) / 8 and 0 < row["flops_share"] < 1
        assert row["prefill_seconds"] > 0
