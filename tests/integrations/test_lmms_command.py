"""`python -m lmms_eval` itself, as users call it: without network, models saved to disk, one and two processes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from lmms_runs import environment, run_command, run_here
from lmms_tasks import documents, write_tasks, write_video

from seeless.integrations.lmms_eval.vtr import LlavaVTR
from seeless.tiny import load_tiny
from torchvision_shim import TORCHVISION, shim_path

WRITTEN, CHOSEN = "small_written", "small_chosen"
PLUGIN = '''
from dataclasses import dataclass

from seeless.vtr import PruningStrategy, VTRConfig, register_strategy


@dataclass
class MyConfig(VTRConfig):
    my_temperature: float = 1.0


@register_strategy("mymethod")
class MyMethod(PruningStrategy):
    """What the last token attends to, weighed against how large a token is."""

    config_class = MyConfig

    def compute_scores(self, attention, image_token_range, config, hidden_states=None, **ctx):
        start, end = image_token_range
        scores = attention[:, :, -1, start:end].mean(dim=1).squeeze(0)
        return scores ** (1 / config.my_temperature) + 0.001 * hidden_states[0, start:end].norm(dim=-1)
'''


def losses(run) -> list[float]:
    return [float(loss) for _, choices in sorted(run.answers[CHOSEN].items()) for loss, _ in choices]


def figures(run, task: str) -> list[float]:
    """Of one task, but for seconds."""
    names = ("visual_tokens_before", "visual_tokens", "visual_tokens_share", "flops", "flops_untouched", "flops_share")
    several = f"avg_{task}/flops" in run.results["throughput"]
    return [run.results["throughput"][f"avg_{task}/{name}" if several else f"avg_{name}"] for name in names]


def written(answers: dict) -> dict[int, str]:
    return {int(number): each if isinstance(each, str) else each[0] for number, each in answers[WRITTEN].items()}


def test_llava(tmp_path, whole):
    """PriorTR's command with a guest in a file: simple in two processes; here batches of 3; with --all, chat and 1."""
    model, processor = load_tiny()
    model.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    (tmp_path / "my.py").write_text(PLUGIN)
    tasks = write_tasks(tmp_path / "tasks")
    plugin = tmp_path / "my.py"
    given = f"pretrained={tmp_path / 'llava'},strategy=mymethod,plugin={plugin},my_temperature=0.7,keep_tokens=36"
    common = ("--model", "llava_vtr", "--model_args", given, "--include_path", tasks)

    two = run_command(
        tmp_path / "two",
        *(*common, "--tasks", f"{WRITTEN},{CHOSEN}", "--batch_size", 2, "--force_simple"),
        processes=2,
    )
    arguments = {"plugin": str(plugin), "strategy": "mymethod", "my_temperature": 0.7, "keep_tokens": 36}
    lm = LlavaVTR(pretrained=str(tmp_path / "llava"), batch_size="3", device="cpu", **arguments)
    here = run_here(lm, tasks, [WRITTEN, CHOSEN])

    runs = [two]
    if whole:
        runs.append(run_command(tmp_path / "one", *common, "--tasks", WRITTEN, "--batch_size", 1))
    assert all(written(run.answers) == written(here.answers) for run in runs)
    assert len(set(written(here.answers).values())) > 1
    assert losses(two) == pytest.approx(losses(here), abs=1e-3)
    for task, metric in ((WRITTEN, "exact,none"), (CHOSEN, "acc,none"), (CHOSEN, "acc_norm,none")):
        assert two.results["results"][task][metric] == here.results["results"][task][metric]
    for run in runs:
        assert run.results["results"][WRITTEN]["exact,none"] == here.results["results"][WRITTEN]["exact,none"]
        assert figures(run, WRITTEN) == pytest.approx(figures(here, WRITTEN))
        assert run.results["efficiency"]["overall"]["total_input_tokens"] > 0
    assert figures(two, CHOSEN) == pytest.approx(figures(here, CHOSEN))
    layers = 3 * 1008 + 5 * 36 * 6  # K = 3 of 8 layers see all of the 1008 tokens, the rest 36 of each prompt's
    assert figures(two, WRITTEN)[:2] == pytest.approx([1008 / 7, layers / 8 / 7])
    measured = [run.results["throughput"]["avg_measured_requests"] for run in (here, *runs)]
    assert measured == [35, 35, 7][: len(measured)]  # those that only pad the second process's share do not count


@pytest.fixture
def torchvision(tmp_path):
    """Environment of subprocesses that can import torchvision, which processors of Qwen-VL need."""
    if importlib.util.find_spec("torchvision") is None and not TORCHVISION.is_dir():
        pytest.skip("processors of Qwen-VL need torchvision")
    return environment(*shim_path(tmp_path / "shim"))


def test_qwen(tmp_path, torchvision, whole):
    """Pictures of several sizes, several pictures, a video: batches, interfaces and, with --all, the command agree."""
    video = write_video(tmp_path / "scenes.mp4")
    docs = [*documents(), {"pictures": [], "question": "how many digits?", "answer": "3", "video": str(video)}]
    tasks = write_tasks(tmp_path / "tasks", [{"video": "", **doc} for doc in docs])
    script = [sys.executable, Path(__file__).with_name("qwen_answers.py"), tmp_path, tasks]
    done = subprocess.run(list(map(str, script)), env=torchvision, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])

    for name in ("qwen2_vl none", "qwen2_vl fastv", "qwen3_vl fastv"):
        one, three, chat = (found[f"{name} {way}"] for way in ("one", "three", "chat"))
        assert written(one) == written(three) == written(chat)
        both = [[loss for choices in run[CHOSEN].values() for loss, _ in choices] for run in (one, three)]
        assert both[0] == pytest.approx(both[1], abs=2e-3)
        assert one["tokens"] == three["tokens"] == chat["tokens"]
        before, average = one["tokens"]["7"]  # the video
        assert before > 0 and (average == before if name.endswith("none") else average < before)
    untouched, vtr = found["qwen2_vl none one"], found["qwen2_vl vtr chat"]
    assert [written(untouched)[number] for number in (0, 1, 2, 3, 4, 6)] == found["plain"]
    assert written(untouched) != written(found["qwen2_vl fastv one"]) != written(vtr)

    if not whole:
        return
    given = f"pretrained={tmp_path / 'qwen2_vl'},vtr_prune_layer=2,vtr_keep_ratio=0.3,max_num_frames=6"
    run = run_command(
        tmp_path / "output",
        *("--model", "qwen2_vl_vtr", "--model_args", f"{given},min_pixels=3136,max_pixels=28224"),
        *("--include_path", tasks, "--tasks", WRITTEN, "--batch_size", 2),
        env=torchvision,
    )
    assert written(run.answers) == written(vtr)
    means = [sum(each[place] for each in vtr["tokens"].values()) / len(docs) for place in (0, 1)]
    assert figures(run, WRITTEN)[:2] == pytest.approx(means)
