"""Every mistake gives one line on stderr and the exit code of its kind."""

import json
import subprocess
import sys

import pytest
from saved_models import save_llava

from seeless.cli import main as main_module
from tinies import PaliGemma


def refused(outcome, code: int, *parts: str) -> None:
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["run", "--strategy", "fastvv"], 2, ["'fastvv'", "did you mean fastv"]),
        (["run", "--compare", "fastv,vispurner"], 2, ["did you mean vispruner"]),
        (["info", "fastvv"], 2, ["did you mean fastv"]),
        (["run", "--head-aggregation", "max"], 2, ["fastv has no field 'head_aggregation'", "belongs to priortr"]),
        (["run", "--no-such", "1"], 2, ["its fields are keep"]),
        (["run", "--compare", "fastv,pool", "--head-aggregation", "max"], 2, ["none of fastv, pool", "priortr"]),
        (["run", "--random.seed", "3"], 2, ["'random'", "what runs is fastv"]),
        (["run", "--fastv.weight", "3"], 2, ["fastv has no field 'weight'"]),
        (["run", "--strategy", "priortr", "--head-aggregation", "median"], 2, ["--head-aggregation", "mean or max"]),
        (["run", "--strategy", "router"], 2, ["router needs members", "command line", "sl.Router(members=...)"]),
        (["run", "--strategy", "router", "--members", "3"], 2, ["--members 3", "cannot be given on the command line"]),
        (["run", "--strategy", "router", "--keep", "0.5"], 2, ["router has no field 'keep'", "its fields are members"]),
        (["run", "--layer", "two"], 2, ["--layer two", "whole number"]),
        (["run", "--layer"], 2, ["--layer needs a value"]),
        (["run", "--layer", "99"], 2, ["8 layers"]),
        (["run", "--layer", "2,4"], 2, ["need 2 budgets"]),
        (["run", "--keep", "0"], 2, ["keep=0"]),
        (["run", "--keep", "1.5"], 2, ["keep=1.5"]),
        (["run", "--keep", "1000"], 2, ["keep=1000, but the image has 576 visual tokens; use --keep 1.0 to keep all"]),
        (["run", "--strategy", "pool", "--keep", "577"], 2, ["keep=577, but the image has 576"]),
        (["run", "cat.jpg"], 2, ["'cat.jpg'", "--image"]),
        (["run", "--image", "missing.png"], 5, ["'missing.png'", "No such file"]),
        (["run", "--image", "."], 5, ["'.'"]),
        (["run", "--image", "http://127.0.0.1:9/x.png"], 5, ["http://127.0.0.1:9/x.png"]),
        (["run", "--model", "no/such-model"], 6, ["'no/such-model'"]),
        (["run", "--model", "./missing"], 6, ["'./missing'", "no such folder"]),
        (["info", "./missing"], 6, ["no such folder"]),
        (["run", "--plugin", "missing.py"], 7, ["missing.py does not exist"]),
        (["run", "--save-overlay", "kept.docx"], 1, ["kept.docx", ".docx"]),
        (["run", "--save-overlay", "missing/kept.png"], 1, ["no folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0] in ("run", "info") else "",
)
def test_mistakes(seeless, arguments, code, parts):
    refused(seeless(*arguments), code, *parts)


def test_a_file_that_is_no_picture(seeless, plugin):
    refused(seeless("run", "--image", plugin), 5, "cannot identify")


@pytest.mark.parametrize("code", ["import nothing_of_this_name", "x = (", 'raise RuntimeError("line 1\\nline 2")'])
def test_a_plugin_that_cannot_be_imported(seeless, tmp_path, code):
    (tmp_path / "bad.py").write_text(code)
    refused(seeless("list", "--plugin", "bad.py"), 7, "bad.py cannot be imported")


@pytest.mark.parametrize("verb", [["run", "--model"], ["info"]])
def test_an_unsupported_model_is_refused_before_weights_are_looked_for(seeless, tmp_path, verb):
    folder = tmp_path / "model"
    folder.mkdir()
    for model_type in ("gpt2", "unheard_of"):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        refused(seeless(*verb, folder), 4, repr(model_type), "supported are ", " llava, ", " qwen2_vl, ")
    for model_type in ("blip-2", "kosmos-2"):
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        refused(seeless(*verb, folder), 4, repr(model_type), "not supported: learned queries")


def test_a_prompt_longer_than_a_sliding_window_runs(seeless, tmp_path):
    folder = save_llava(tmp_path / "model", sliding_window=32)
    assert seeless("info", folder).code == 0
    assert seeless("run", "--model", folder, "--max-new-tokens", "2").code == 0


def test_a_strategy_without_its_signal_is_refused_before_weights_are_looked_for(seeless, tmp_path):
    folder = tmp_path / "model"
    PaliGemma().config().save_pretrained(folder)
    refused(seeless("run", "--model", folder, "--strategy", "priortr"), 4, "blind to the question")
    refused(seeless("run", "--model", folder, "--compare", "fastv,priortr"), 4, "blind to the question")
    refused(seeless("run", "--model", folder, "--strategy", "vispruner"), 6, "cannot load")  # it only lacks weights


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_folder_without_a_config(seeless, tmp_path, content):
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    refused(seeless("run", "--model", folder), 6, "cannot load")


def test_a_checkpoint_without_weights(seeless, tmp_path):
    folder = save_llava(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    refused(seeless("run", "--model", folder), 6, "cannot load")


def test_a_checkpoint_that_lacks_weights(seeless, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_llava(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    dropped = next(name for name in weights if "q_proj" in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, folder / "model.safetensors", {"format": "pt"})
    refused(seeless("run", "--model", folder), 6, "lacks 1 weights", "q_proj")


def test_a_checkpoint_without_chat_template(seeless, tmp_path):
    folder = save_llava(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    refused(seeless("run", "--model", folder), 6, "no chat template")


def test_wrong_use_of_options_is_a_usage_error(seeless):
    assert seeless("run", "--strategy", "fastv", "--compare", "pool").code == 2
    assert seeless("run", "--compare", "none").code == 2
    assert seeless("run", "--max-new-tokens", "many").code == 2
    assert seeless("fly").code == 2


def test_a_missing_extra_names_the_install_line(monkeypatch, capsys):
    monkeypatch.setattr(main_module, "NEEDED", ("typer", "no_such_package_at_all"))
    with pytest.raises(SystemExit) as end:
        main_module.main(["list"])
    assert end.value.code == 3 and 'pip install "seeless[cli]"' in capsys.readouterr().err


def test_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "seeless.cli.main", "run", "--strategy", "fastvv"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in done.stderr
