"""The adapter for VLMEvalKit and its launcher, against a package that has what VLMEvalKit has."""

import json
import subprocess
import sys

import pytest

import seeless as sl
from seeless.integrations import vlmevalkit
from seeless.tiny import draw_scene

STUB = {
    "vlmeval/__init__.py": "",
    "vlmeval/config.py": "supported_VLM = {}\n",
    "vlmeval/vlm/__init__.py": "",
    "vlmeval/vlm/base.py": """
class BaseModel:
    def __init__(self):
        self.dump_image_func = None

    def generate(self, message, dataset=None):
        assert all(set(part) == {"type", "value"} for part in message)
        return self.generate_inner(message, dataset)
""",
    "run.py": """
import argparse, json

def main():
    from vlmeval.config import supported_VLM
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--data")
    arguments = parser.parse_args()
    model = supported_VLM[arguments.model[0]]()
    message = json.loads(open(arguments.data).read())
    print(json.dumps({"model": arguments.model, "answer": model.generate(message, dataset="TINY")}))

if __name__ == "__main__":
    main()
""",
}


@pytest.fixture
def clone(tmp_path):
    for name, text in STUB.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    scene = draw_scene(3)
    scene.image.save(tmp_path / "scene.png")
    message = [
        {"type": "image", "value": str(tmp_path / "scene.png")},
        {"type": "text", "value": scene.questions[0].text},
    ]
    (tmp_path / "message.json").write_text(json.dumps(message))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "vlmeval"]:
        del sys.modules[name]


def launch(clone, *arguments):
    command = [sys.executable, "-m", "seeless.integrations.vlmevalkit", "--run", "run.py", *arguments]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True)


def test_the_launcher(clone):
    model = "pretrained=tiny,strategy=fastv,keep=72,layer=[2]"
    done = launch(clone, "--name", "tiny72", "--model-args", model, "--data", "message.json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": ["tiny72"], "answer": draw_scene(3).questions[0].answer}


def test_the_model(clone, monkeypatch):
    monkeypatch.syspath_prepend(clone)
    vlmevalkit.register("mine", pretrained="tiny", strategy="fastv", keep="36", max_new_tokens=2)
    import vlmeval.config
    import vlmeval.vlm

    made = vlmeval.config.supported_VLM["mine"]()
    assert isinstance(made, vlmeval.vlm.SeelessVLM) and made.answerer.strategy == sl.FastV(keep=36)
    message = json.loads((clone / "message.json").read_text())
    assert made.generate(message).split()[0] == draw_scene(3).questions[0].answer
    with pytest.raises(sl.BudgetError, match="keeep"):
        vlmeval.vlm.SeelessVLM(pretrained="tiny", strategy="fastv", keeep="36")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--run", "missing.py"], "there is no such file"),
        (["--run", "run.py", "--model", "x"], "--name names it"),
        (["--run", "run.py"], "VLMEvalKit is not installed"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, part):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "run.py").touch()
    with pytest.raises(SystemExit) as end:
        vlmevalkit.main(arguments)
    assert part in capsys.readouterr().err + str(end.value.code)
    assert end.value.code not in (0, None)


def test_arguments_without_a_value():
    with pytest.raises(sl.InputError, match="'fastv'"):
        vlmevalkit.parse_arguments("pretrained=tiny,fastv")
