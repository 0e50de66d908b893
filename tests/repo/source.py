"""The files of this repository, parsed."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "seeless"
FILES = sorted(PACKAGE.rglob("*.py"))


def short(path):
    return str(path.relative_to(PACKAGE))


def files_of(package):
    return sorted((PACKAGE / package).rglob("*.py"))


@cache
def tree(path):
    return ast.parse(path.read_text())


def imports(path):
    """Every imported name with the module in front, relative imports resolved: "torch", "seeless.ops.topk.top_mask"."""
    package = ["seeless", *path.relative_to(PACKAGE).parent.parts]
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def docstrings(parsed):
    """The constant nodes that are docstrings."""
    found = set()
    for node in ast.walk(parsed):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                found.add(first.value)
    return found


def words(path):
    """`(line, text)` of every identifier and string constant in code; docstrings and comments left out."""
    parsed = tree(path)
    skip = docstrings(parsed)
    for node in ast.walk(parsed):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skip:
            yield line, node.value
        for name in ("id", "attr", "arg", "name", "asname"):
            if isinstance(text := getattr(node, name, None), str):
                yield line, text


@cache
def tracked():
    """Files under version control that are here; without git, none."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]
