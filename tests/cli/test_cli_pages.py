"""The commands in the shell blocks of README and docs/ can be given as they stand, with the files that they name.

On the embedded model they run; where the work is long (timing, training, an analysis, an evaluation) up to where it
begins. A model of the hub is not here: then everything before it is asked for has been found right.
"""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from seeless.named.errors import UnloadableModel
from seeless.tiny import draw_scene

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```sh(?P<no_run> no-run)?\n(?P<body>.*?)^\1```", re.MULTILINE | re.DOTALL)
FOREIGN = {"git", "vllm", "accelerate", "lmms-eval", "pre-commit", "."}  # programs of other people, and the shell
PROJECT = (ROOT / "pyproject.toml").read_text()
STANDS_FOR = {"CONFIG_FOLDER": "nobody/config", "CHECKPOINT": "nobody/checkpoint", "cuda": "cpu"}
HUB = re.compile(r"(llava-hf|Qwen|nobody|llava)/|^(llava|qwen3vl|video-llava)$|^\./my-model$")
MISSING = UnloadableModel.exit_code
BRIEF = {"run": ["--repeats", "0"], "eval": ["--dry-run"], "serve": ["--dry-run"]}
LONG = {
    "advise": "seeless.advice.measuring.timed",
    "analyze": "seeless.cli.analyze._gather",
    "bench": "seeless.bench.measure.measure",
    "demo": "seeless.demo.serving.check_gradio",
    "train": "seeless.train.finetune",
}
PLUGINS = {
    "loud.py": """
import seeless as sl


@sl.register("loud")
class Loud(sl.LayerStrategy):
    weight: float = 0.1

    def score(self, ctx):
        return self.weight * ctx.visual.norm(dim=-1)
""",
    "my_method.py": """
import seeless as sl


@sl.register("mymethod")
class MyMethod(sl.LayerStrategy):
    def score(self, ctx):
        return ctx.visual.norm(dim=-1)
""",
    "my_strategy.py": """
from dataclasses import dataclass

from seeless.vtr import PruningStrategy, VTRConfig, register_strategy


@dataclass
class MyConfig(VTRConfig):
    my_temperature: float = 1.0


@register_strategy("mymethod")
class MyStrategy(PruningStrategy):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        start, end = image_token_range
        return attention[:, :, -1, start:end].mean(dim=1).squeeze(0) / config.my_temperature
""",
    "qianfan.py": """
import seeless as sl

sl.register_family(sl.Family(title="Qianfan", model_types=("qianfan",), tower="vision_tower"))
""",
}


def commands(page):
    """`(line of the block, words)` of every command of a page; variables set before a program are left out."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        if page.name == "sweep.md" and not block["no_run"]:
            continue  # tests/eval/test_sweep_command.py runs it, whole
        line = text.count("\n", 0, block.start()) + 2
        for command in re.split(r"\n| && ", block["body"].replace("\\\n", " ")):
            words = shlex.split(command, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield line, words


ALL = [(f"{page.relative_to(ROOT)}:{line}", words) for page in PAGES for line, words in commands(page)]
OWN = [(where, words[1:]) for where, words in ALL if Path(words[0]).name == "seeless"]
OTHERS = [(where, words) for where, words in ALL if Path(words[0]).name != "seeless"]


class WorkBeginsError(Exception):
    """Everything was found right."""


@pytest.fixture
def files(tmp_path):
    """What the commands of the pages name."""
    for folder in ("photos", "data", "images", "videos"):
        (tmp_path / folder).mkdir()
    for picture in ("photo.jpg", "cat.png", "photos/a.png", "data/a.png", "images/a.png"):
        draw_scene(0).image.save(tmp_path / picture)
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A red seven."}]
    record = {"id": "7", "image": "a.png", "conversations": turns}
    (tmp_path / "llava.json").write_text(json.dumps([record]))
    (tmp_path / "llava_v1_5_mix1k.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "test_q.json").write_text(json.dumps([{"video_name": "v1", "question_id": "q1", "question": "what?"}]))
    (tmp_path / "test_a.json").write_text(json.dumps([{"question_id": "q1", "answer": "dog"}]))
    timed = (ROOT / "results" / "speed.jsonl").read_text().split("\n")[:3]
    (tmp_path / "bench.jsonl").write_text("\n".join([*timed, ""]))
    for name, text in PLUGINS.items():
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize(("where", "words"), OWN, ids=[f"{where}-{words[:1]}" for where, words in OWN])
def test_what_pages_ask_of_seeless_can_be_asked(where, words, seeless, files, tmp_path, monkeypatch):
    verb, words = words[0], [STANDS_FOR.get(word, word) for word in words]
    monkeypatch.setenv("HOME", str(tmp_path))  # where completion is installed
    if verb in LONG:

        def begin(*args, **kwargs):
            raise WorkBeginsError

        monkeypatch.setattr(LONG[verb], begin)
    more = BRIEF.get(verb, []) + (["--scale", "1/64"] if "--arch" in words else [])
    try:
        outcome = seeless(*words, *more)
    except WorkBeginsError:
        return
    assert outcome.code in ((0, MISSING) if any(map(HUB.search, words)) else (0,)), outcome.err
    if outcome.code == MISSING and verb != "serve":  # whose other options are vLLM's
        assert seeless(*words, *more, "--no-such-option", "3").code == 2


@pytest.mark.parametrize(("where", "words"), OTHERS, ids=[f"{where}-{words[0]}" for where, words in OTHERS])
def test_what_pages_ask_of_other_programs_is_there(where, words):
    """Targets of make, extras and files of pip, modules and files of Python."""
    program, *arguments = words[0].rpartition("/")[2], *words[1:]
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in arguments if "=" not in word)
    elif program == "pip":
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert {f"{name} = [" for name in extras.split(",")} <= set(re.findall(r"^\w+ = \[", PROJECT, re.MULTILINE))
        for option, file in zip(arguments, arguments[1:], strict=False):
            assert option not in ("-r", "-c") or (ROOT / file).is_file()
    elif program == "python":
        if arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]) is not None
        named = [
            word.partition("::")[0] for word in arguments if re.match(r"(tests|docs|training|release|data)/", word)
        ]
        assert all((ROOT / name).exists() for name in named)
    else:
        assert program in FOREIGN, f"{where}: say how {program} is checked"
