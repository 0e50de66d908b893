"""What only shows something starts without torch, and shows what the classes themselves say."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import seeless as sl
from seeless.cli import catalogue
from seeless.cli.cards import cards
from seeless.cli.errors import EXIT_CODES

HEAVY = ("torch", "transformers", "matplotlib", "pandas", "PIL", "lmms_eval", "gradio")
VERBS = (
    *("list", "info", "run", "train", "eval", "sweep", "advise", "analyze", "demo", "plot", "check-family"),
    "tasks-path",
)
SHOWN = [
    [],
    ["-h"],
    ["--help"],
    ["--version"],
    ["list"],
    ["list", "--json"],
    ["info", "fastv"],
    ["info", "vtr:fastv", "--json"],
    ["tasks-path"],
    *([verb, flag] for verb in VERBS for flag in ("-h", "--help")),
]
CALLS = f"""
import contextlib, io, json, sys
from seeless.cli.main import main
found = []
for arguments in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code or 0
    found.append([arguments, code, out.getvalue(), [m for m in {HEAVY} if m in sys.modules]])
print(json.dumps(found))
"""


def run_python(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "TERMINAL_WIDTH": "100", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_that_only_shows_something_imports_torch():
    found = json.loads(run_python(CALLS, json.dumps(SHOWN)))
    for arguments, code, out, heavy in found:
        assert (heavy, code, out == "") == ([], 0 if arguments else 2, False), arguments
    shown = {tuple(arguments): out for arguments, _, out, _ in found}
    for verb in VERBS:
        assert shown[verb, "-h"] == shown[verb, "--help"] and "Usage: seeless " + verb in shown[verb, "-h"]
        assert verb in shown["--help",]
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in " ".join(shown["-h",].split())
    assert shown["--version",].strip() == f"seeless {sl.__version__}"


def test_import_seeless_imports_no_torch():
    out = run_python(f"import seeless, sys; print([m for m in {HEAVY} if m in sys.modules], 'apply' in dir(seeless))")
    assert out.strip() == "[] True"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["seeless", "sw"], ["sweep"]),
        (["seeless", "run", "--strategy", "prior"], ["priortr", "priortr_2f"]),
        (["seeless", "info", "vtr:fa"], ["vtr:fastv"]),
        (["seeless", "train", "--strategy", "fast"], ["fastervlm", "fastv", "fastvid"]),
    ],
    ids=" ".join,
)
def test_the_shell_completes(words, found):
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\n"
        "from seeless.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    out = run_python(
        code, _SEELESS_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1)
    )
    *names, heavy = out.splitlines()
    assert (sorted(names), heavy) == (found, "[]")


def test_the_catalogue_is_what_the_classes_say():
    assert list(catalogue.built_in().values()) == cards(), "run python docs/make_catalogue.py"


def test_strategies_of_another_package_are_listed(monkeypatch, seeless):
    """An entry point is loaded, so its strategies are there beside the built-in ones."""
    code = (
        "import seeless as sl\n"
        "@sl.register('guest_of_test')\n"
        "class Entered(sl.FastV):\n"
        "    'Said.'\n"
        "    gain: float = 3.0\n"
    )

    class Point(EntryPoint):
        def load(self):
            exec(code, {"__name__": "entered"})

    from seeless import registry

    def entry_points(group):
        return [Point("x", "y", group)] if group == registry.ENTRY_POINTS else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    registry._scan.cache_clear()
    try:
        out = seeless("list").out
        assert "guest_of_test" in out and "gain=3.0" in out and "fastv" in out
        assert json.loads(seeless("info", "guest_of_test", "--json").out)["doc"] == "Said."
    finally:
        registry._scan.cache_clear()
