"""A command's output is shown and kept; the reason of a failure is found in it."""

import sys

import pytest

from seeless.eval.launch import launch, reason


def test_output_goes_to_stderr_and_to_the_log(tmp_path, capsys):
    log = tmp_path / "log"
    script = "import os, sys; print('out ü', os.environ['TOLD']); print('err', file=sys.stderr); sys.exit(7)"
    assert launch([sys.executable, "-c", script], {"TOLD": "so", "PYTHONIOENCODING": "utf-8"}, log) == 7
    assert set(log.read_text().split("\n")) == {"out ü so", "err", ""}
    shown = capsys.readouterr()
    assert shown.out == "" and "out ü so" in shown.err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "ValueError: no\n\x1b[31mERROR\x1b[0m - Error during evaluation: no such layer. Please set `--verbosity"
            "=DEBUG` to get more information.\ntable\n",
            "no such layer",
        ),
        ("first\nTraceback:\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\nmore\n", "torch.OutOfMemoryError"),
        ("RuntimeError: the cause\nE  ChildFailedError:\nChildFailedError: x\n", "RuntimeError: the cause"),
        ("10%\r20%\rlast words\n\n", "last words"),
        ("", "it printed nothing"),
    ],
)
def test_the_reason(tmp_path, text, found):
    log = tmp_path / "log"
    log.write_text(text)
    assert reason(log).startswith(found)


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    log = tmp_path / "log"
    log.write_text("ValueError: old\n" + "fine\n" * 100_000 + "KeyError: 'new'\n")
    assert reason(log) == "KeyError: 'new'"
