"""What `import seeless` offers, and that all of it is explained."""

import ast
import inspect
import re
import subprocess
import sys

import pytest
from source import FILES, PACKAGE, short, tree

import seeless as sl
from seeless import errors
from seeless.cli.facts import facts_of
from seeless.registry import strategy_class

OPTIONAL = (
    "PIL",
    "typer",
    "rich",
    "sklearn",
    "accelerate",
    "peft",
    "torchvision",
    "matplotlib",
    "gradio",
    "av",
    "pillow_heif",
)
PAPERS = {
    "fastv": "2403.06764",
    "priortr": "2606.24156",
    "pyramiddrop": "2410.17247",
    "fastervlm": "2412.01818",
    "vispruner": "2412.01818",
    "clse": "2606.24165",
    "divprune": "2503.02175",
    "dart": "2502.11494",
    "holov": "2510.02912",
    "sparsevlm": "2410.04417",
    "evs": "2510.14624",
    "vidcom2": "2505.14454",
    "priortr_2f": "2606.24156",
    "tome": "2210.09461",
    "visionzip": "2412.04467",
    "prumerge": "2403.15388",
    "prumerge_plus": "2403.15388",
    "cdpruner": "2506.10967",
    "prunesid": "2603.09480",
    "eadp": "EADP, ECCV 2026",
    "anchorprune": "2607.07033",
    "mmtok": "2508.18264",
    "vscan": "2505.22654",
    "hiprune": "2508.00553",
    "tops": "2606.27161",
    "flowcut": "2505.19536",
    "mustdrop": "2411.10803",
    "pixelprune": "2604.00886",
    "dycoke": "2411.15024",
    "flashvid": "2602.08024",
    "holitom": "2505.21334",
    "fastvid": "2503.11187",
    "prunevid": "2412.16117",
    "scope": "2510.24214",
}

WITHOUT_NUMBER = ("eadp",)  # papers that are not on arXiv


def built_in():
    return [n for n in sl.available() if strategy_class(n).__module__.startswith("seeless.")]


def test_all_is_sorted_and_without_repetition():
    assert sl.__all__ == sorted(set(sl.__all__))


def test_all_is_complete():
    strategies = {strategy_class(name).__name__ for name in built_in()}
    mistakes = {n for n, v in vars(errors).items() if inspect.isclass(v) and issubclass(v, errors.SeelessError)}
    assert strategies <= set(sl.__all__) and mistakes <= set(sl.__all__)
    here = {n for n, v in vars(sl).items() if (inspect.isclass(v) or inspect.isfunction(v)) and not n.startswith("_")}
    assert here <= set(sl.__all__)  # nothing public by accident


def test_the_lazy_names_are_those_that_type_checkers_see():
    """`seeless/__init__.py` names its public names for tools, at run time, and in `__all__`."""
    (choice,) = (node for node in tree(PACKAGE / "__init__.py").body if isinstance(node, ast.If))
    seen = {node.module: tuple(alias.name for alias in node.names) for node in choice.body}
    (call,) = (node.value for node in choice.orelse if isinstance(node, ast.Assign))
    assert ast.literal_eval(call.args[1]) == seen
    assert sorted(name for names in seen.values() for name in names) == sl.__all__


def test_star_import():
    space = {}
    exec("from seeless import *", space)
    assert set(sl.__all__) <= set(space)
    assert all(space[name] is getattr(sl, name) for name in sl.__all__)


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(a|b|rc|dev)\d+)?", sl.__version__)


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_public_class_and_function_has_a_docstring(path):
    module = tree(path)
    assert ast.get_docstring(module), "the module itself"
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    public = [node for node in module.body if isinstance(node, kinds) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", [n for n in sl.__all__ if inspect.isclass(getattr(sl, n))])
def test_public_methods_that_are_not_overrides_have_docstrings(name):
    cls = getattr(sl, name)
    inherited = {method for base in cls.__mro__[1:] for method in vars(base)}
    for method, value in vars(cls).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        if method.startswith("_") or method in inherited or not inspect.isfunction(function):
            continue
        if name in ("Keep", "Merge", "StageReport", "Report") and method in ("to_dict", "indices"):
            continue  # said by its name and its class
        assert inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize("name", built_in())
def test_every_strategy_says_what_it_computes(name):
    doc = inspect.cleandoc(strategy_class(name).__doc__)
    summary = doc.splitlines()[0]
    assert summary.endswith(".") and len(summary) <= 110
    knobs = list(inspect.get_annotations(strategy_class(name)))
    shared = {"keep", "average", "threshold", "scope", "positions", "past", "newlines", "stage", "rounding"}
    shared |= {"lowest_layer", "own_positions", "no_training", "one_by_one", "may_drop_all", "adaptive", "own_count"}
    shared |= {"depth_share"}
    for knob in [k for k in knobs if k not in shared]:
        assert re.search(rf"^\s+{knob}: ", doc, re.MULTILINE), f"{name}: Args says nothing about {knob}"


@pytest.mark.parametrize("name", PAPERS)
def test_every_method_names_its_paper_and_formula(name):
    cls = strategy_class(name)
    facts = facts_of(inspect.cleandoc(cls.__doc__))
    number = PAPERS[name] if name in WITHOUT_NUMBER else f"arXiv {PAPERS[name]}"
    assert number in facts["Paper"] and PAPERS[name] in cls.paper and facts["Formula"]


def test_import_is_light():
    """Optional packages are imported by the function that needs them, not by `import seeless`."""
    code = "import sys, torch, transformers; before = set(sys.modules); import seeless; seeless.available(); "
    code += f"print([m for m in {OPTIONAL} if m in set(sys.modules) - before])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_optional_package_is_imported_at_the_top_of_the_library():
    """Whatever transformers drags in by itself: our own files outside the rooms for extras must not."""
    extras = ("cli", "bench", "tiny", "reader", "demo", "plots", "eval", "analysis", "integrations", "vtr", "train")
    for path in FILES:
        if short(path).split("/")[0] in extras:
            continue
        top = [n for n in tree(path).body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = [a.name for n in top if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in top if isinstance(n, ast.ImportFrom)]
        assert not [n for n in names if n.split(".")[0] in OPTIONAL], short(path)
