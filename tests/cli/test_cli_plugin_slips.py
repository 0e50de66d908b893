"""A plug-in that fails: one line, its own file and line first, then strategy, stage and what happened."""

import json

import pytest

HEAD = '''
import torch
import seeless as sl

@sl.register("mine")
class Mine(sl.LayerStrategy):
    """Mine."""
'''


@pytest.fixture
def write(tmp_path):
    def written(body, name="mine.py", head=HEAD):
        file = tmp_path / name
        file.write_text(head + "".join(f"    {line}\n" for line in body.splitlines()))
        return file

    return written


def line_of(file, text):
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)


def refused(outcome, code, *parts):
    assert outcome.code == code and outcome.err.count("\n") == 1 and "Traceback" not in outcome.err, outcome
    for part in parts:
        assert part in outcome.err, outcome.err


QUICK = ("--repeats", 0, "--max-new-tokens", 1)
RAISES = "def helper(self, ctx):\n    return {}['b']  # here\ndef {rung}(self, ctx):\n    return self.helper(ctx)\n"


@pytest.mark.parametrize("rung", ["score", "select", "reduce", "prepare"])
def test_an_exception(seeless, write, rung):
    body = RAISES.replace("{rung}", rung)
    body += "def score(self, ctx):\n    return ctx.index.float()\n" if rung == "prepare" else ""
    file = write(body)
    outcome = seeless("run", "--model", "tiny", *QUICK, "--plugin", file, "--strategy", "mine")
    where = "before the first layer" if rung == "prepare" else "stage 0, before layer 2"
    refused(outcome, 7, f"error: {file}:{line_of(file, '# here')}, in helper of Mine, {where}: KeyError: 'b'")


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("def score(self, ctx):\n    ctx.index.float()", ["Mine, stage 0, before layer 2", "is a return missing?"]),
        ("def score(self, ctx):\n    return ctx.index / 0.0 * 0", ["row 0: it has 144 scores that are NaN"]),
        ("def score(self, ctx):\n    self.kept = 3  # here", ["ctx.memory['kept']"]),
        ("def score(self, ctx):\n    return ctx.index[:, :3]  # x", ["[1, 3] for [1, 144]"]),
        ("def score(self, ctx):\n    return ctx.memory['x'] # here", ["no earlier stage", "`watches`"]),
        ("def score(self):\n    return 1", ["TypeError: Mine.score() takes 1 positional argument but 2 were given"]),
        ("def select(self, ctx):\n    return sl.Keep.indices(torch.tensor([1, 2]), 144)  # here", ["[units, kept]"]),
        ("def score(self, ctx):\n    return ctx.attention(layer=99)  # here", ["layer 99 cannot be read"]),
        ("def score(self, ctx):\n    raise SystemExit(0)  # here", ["of Mine, stage 0, before layer 2: SystemExit: 0"]),
        ("def score(self, ctx): ...\ndef __post_init__(self):\n    raise ValueError('no')  # here", ["ValueError: no"]),
        ("def score(self, ctx): ...\ndef layers(self, depth):\n    return [depth // 0]  # here", ["ZeroDivisionError"]),
    ],
)
def test_slips_while_it_runs(seeless, write, body, parts):
    file = write(body)
    outcome = seeless("run", "--model", "tiny", *QUICK, "--plugin", file, "--strategy", "mine")
    refused(outcome, 7, *parts)
    if "# here" in body:
        assert outcome.err.startswith(f"error: {file}:{line_of(file, '# here')}, in ")


@pytest.mark.parametrize(
    ("body", "parts", "line"),
    [
        ("def scores(self, ctx): ...", ["defines none of score", "did you mean score?"], "@sl.register"),
        ("weight = 0.1\ndef score(self, ctx): ...", ["weight: float = 0.1"], "class Mine"),
        ("weight: float\ndef score(self, ctx): ...", ["kw_only=True"], "class Mine"),
    ],
)
def test_slips_of_the_class(seeless, write, body, parts, line):
    file = write(body)
    outcome = seeless("list", "--plugin", file)
    lines = {line_of(file, line), line_of(file, "class Mine"), line_of(file, "@sl.register")}
    refused(outcome, 7, "mine.py cannot be imported", *parts)
    assert any(f"line {number}: " in outcome.err for number in lines)


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        ("raise SystemExit(0)\n", ["cannot be imported, line 1: SystemExit: 0"]),
        ("import seeless as sl\n", ["registers nothing", '@sl.register("mine")']),
    ],
)
def test_slips_of_the_file(seeless, write, head, parts):
    file = write("", head=head)
    refused(seeless("list", "--plugin", file), 7, "mine.py", *parts)


def test_a_folder(seeless, tmp_path):
    refused(seeless("list", "--plugin", tmp_path), 7, "is a folder; give its files")


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ("import seeless as sl\n@sl.register\nclass Mine(sl.LayerStrategy):\n", '@sl.register("my_method") above Mine'),
        ("import seeless as sl\n@sl.register('x')\ndef mine(ctx):\n", "mine is no strategy"),
        ("import seeless as sl\n@sl.register\ndef mine(ctx):\n", "above mine"),
    ],
)
def test_slips_of_the_decorator(seeless, write, head, part):
    refused(seeless("list", "--plugin", write("...", head=head)), 7, part)


def test_a_list_as_default_is_taken(seeless, write):
    file = write("layer: list[int] = [3, 7]\ndef score(self, ctx):\n    return ctx.index.float()")
    outcome = seeless(
        "run", "--model", "tiny", *QUICK, "--plugin", file, "--strategy", "mine", "--keep", ".5,.25", "--json"
    )
    report = json.loads(outcome.out)["runs"][1]["report"]
    assert [(stage["layer"], stage["n_after"]) for stage in report["stages"]] == [(3, [72]), (7, [36])]


def test_several_plugins(seeless, write):
    one = write("def score(self, ctx):\n    return ctx.index.float()")
    other = write("def score(self, ctx):\n    return -ctx.index.float()", "other.py", HEAD.replace('"mine"', '"other"'))
    out = seeless("list", "--plugin", one, "--plugin", other).out
    assert "mine" in out and "other" in out


def test_a_sweep_goes_on(seeless, write, tmp_path):
    file = write("def score(self, ctx):\n    raise ArithmeticError('no') # here")
    outcome = seeless(
        "sweep", "--plugin", file, "--strategies", "mine,uniform", "--keep", 0.5, "--limit", 1, "--output", "s.jsonl"
    )
    rows = {row["strategy"]: row for row in map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())}
    assert outcome.code == 1 and set(rows) == {"none", "mine", "uniform"} and "scores" in rows["uniform"]
    assert rows["mine"]["failed"] == (
        f"{file}:{line_of(file, '# here')}, in score of Mine, stage 0, before layer 2: ArithmeticError: no"
    )
