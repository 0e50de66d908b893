"""One meaning per exit code: written down once, the same for the same fault under every verb."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import seeless as sl
from seeless.cli.errors import EXIT_CODES

DOCS = Path(__file__).parents[2] / "docs" / "command-line.md"


def all_errors():
    for module in pkgutil.walk_packages(sl.__path__, "seeless."):
        if module.name.rpartition(".")[2] == "errors":
            importlib.import_module(module.name)
    found, left = set(), [sl.SeelessError]
    while left:
        error = left.pop()
        found.add(error)
        left += error.__subclasses__()
    return {error for error in found if error.__module__.startswith("seeless.")}


def test_every_error_has_a_code_with_a_meaning():
    errors = all_errors()
    assert len(errors) >= 13
    assert {error.exit_code for error in errors} == set(EXIT_CODES) - {0}


def test_the_page_has_them_all():
    rows = re.findall(r"^\| (\d) \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


VERBS = {
    "run": ["run"],
    "train": ["train", "--steps", "1"],
    "eval": ["eval", "--model", "tiny"],
    "sweep": ["sweep", "--model", "tiny", "--limit", "1"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--no-such-option", "3"], 2),
        (["--method-name"], 2),
        (["--layer", "two"], 2),
        (["--plugin", "missing.py"], 7),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_same_fault_ends_alike(seeless, verb, arguments, code):
    named = "--strategies" if verb == "sweep" else "--strategy"
    outcome = seeless(*VERBS[verb], named, "fastv", *arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome


@pytest.mark.parametrize(
    "arguments", [["--model", ""], ["--keep="], ["--fastv.keep", ""], ["--plugin", ""]], ids=" ".join
)
def test_an_empty_value_is_refused(seeless, arguments):
    """What a variable of the shell that is not set leaves: not the default in silence."""
    option = arguments[0].removesuffix("=")
    outcome = seeless("run", *arguments)
    assert outcome.code == 2 and outcome.err == f"error: {option} has an empty value; give one, or leave {option} out\n"


def test_a_torchvision_of_another_torch(seeless, monkeypatch):
    def fails():
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("seeless.cli.tasks_path.print_tasks_path", fails)
    outcome = seeless("tasks-path")
    assert outcome.code == 3 and outcome.err.count("\n") == 1 and "pip uninstall torchvision" in outcome.err


def test_a_kernel_that_is_not_installed(seeless):
    outcome = seeless("run", "--model", "tiny", "--attn-implementation", "flash_attention_2")
    assert outcome.code == 3 and outcome.err.count("\n") == 1 and "FlashAttention2" in outcome.err


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_method_ends_alike(seeless, verb):
    named = "--strategies" if verb == "sweep" else "--strategy"
    outcome = seeless(*VERBS[verb], named, "fastvv")
    assert outcome.code == 2 and "fastvv" in outcome.err and "did you mean fastv" in outcome.err


@pytest.mark.parametrize("verb", VERBS)
def test_an_impossible_budget_ends_alike(seeless, verb):
    named = "--strategies" if verb == "sweep" else "--strategy"
    for keep in ("0", "1.5", "-3", "half", "nan", "inf"):
        assert seeless(*VERBS[verb], named, "fastv", "--keep", keep).code == 2, keep


@pytest.mark.parametrize("verb", ["run", "train", "eval", "sweep"])
def test_a_missing_model_ends_alike(seeless, verb, tmp_path):
    (tmp_path / "data.json").write_text("[]")
    more = {"train": ["--data", "data.json"], "eval": ["--tasks", "scenes"]}.get(verb, [])
    for model in ("no/such-model", "./missing"):
        outcome = seeless(verb, "--model", model, *more)
        assert outcome.code == 6 and model in outcome.err
