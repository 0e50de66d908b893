"""The notebooks of examples/ run from first to last, and print and show what is kept in them."""

import ast
import base64
import contextlib
import io
import json
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from source import ROOT

from seeless import registry

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def run_cell(code, where, space):
    """What a cell prints, and the value of the expression at its end."""
    tree, value = ast.parse(code), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, where, "exec"), vars(space))
        if last is not None:
            value = eval(compile(ast.Expression(last.value), where, "eval"), vars(space))
    return printed.getvalue(), value


def test_a_cell_prints_and_has_a_value():
    assert run_cell("a = 1\nprint(a)\na + 1", "here", ModuleType("cells")) == ("1\n", 2)


def test_there_are_notebooks():
    names = {"first-steps", "own-method", "qwen-video", "training", "serving", "analysis"}
    assert {file.stem for file in NOTEBOOKS} >= names


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_says_what_runs(file, tmp_path, monkeypatch):
    registry._scan()
    known = dict(registry._strategies)
    monkeypatch.chdir(tmp_path)
    space = ModuleType("notebook")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "notebook", space)
    try:
        for number, cell in enumerate(json.loads(file.read_text())["cells"]):
            if cell["cell_type"] == "code":
                printed, value = run_cell("".join(cell["source"]), f"{file.name}, cell {number}", space)
                kept = cell["outputs"]
                assert printed == "".join("".join(each["text"]) for each in kept if each["output_type"] == "stream")
                shown = [each["data"]["image/png"] for each in kept if each["output_type"] == "display_data"]
                assert len(shown) == isinstance(value, Image.Image)
                for png in shown:
                    pictures = [value, Image.open(io.BytesIO(base64.b64decode("".join(png))))]
                    now, then = (np.asarray(picture.convert("RGB"), dtype=float) for picture in pictures)
                    assert now.shape == then.shape and np.abs(now - then).mean() < 1
    finally:
        registry._strategies.clear()
        registry._strategies.update(known)
