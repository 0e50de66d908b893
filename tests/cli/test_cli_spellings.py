"""Options as the scripts of the original methods write them: brackets, and their own names."""

import json
import re
from pathlib import Path

import pytest

from seeless.cli.flags import read_flags
from seeless.cli.spellings import SPELLINGS

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
ROW = re.compile(r"^\| `--(\w+) (.+?)` \| (.+?) \| `(--\w+) (.+?)` \|$", re.MULTILINE)
QUICK = ("--repeats", 0, "--max-new-tokens", 1, "--json")


def rows():
    found = []
    for name, value, methods, field, here in ROW.findall(PAGE.read_text()):
        found += [(method, name, value.strip('"'), field, here) for method in re.findall(r"`(\w+)`", methods)]
    return found


def test_the_page_has_them_all():
    assert {name: field[2:] for _, name, _, field, _ in rows()} == SPELLINGS


@pytest.mark.parametrize(("method", "name", "value", "field", "here"), rows())
def test_an_original_name_is_the_field(capsys, method, name, value, field, here):
    from seeless.cli.flags import as_flag
    from seeless.named.knobs import build_strategies

    for dashes in (name, name.replace("_", "-")):
        built = build_strategies([method], read_flags([f"--{dashes}", value]) | stages(method, field), as_flag)
        assert f"--{name} is {field} here" in capsys.readouterr().err
        assert built == build_strategies([method], read_flags([field, here]) | stages(method, field), as_flag)


def stages(method, field):
    """What a method with three stages needs beside."""
    return {"layer": "8,16,24"} if method == "pyramiddrop" and field == "--keep" else {}


@pytest.mark.parametrize("keep", ["[0.5,0.25,0.125]", "[.5, .25, .125]", "0.5,0.25,0.125"])
def test_brackets(seeless, keep):
    outcome = seeless(
        "run", "--model", "tiny", *QUICK, "--strategy", "pyramiddrop", "--layer", "[2,4,6]", "--keep", keep
    )
    assert outcome.code == 0, outcome
    fields = json.loads(outcome.out)["runs"][1]["fields"]
    assert (fields["layer"], fields["keep"]) == ([2, 4, 6], [0.5, 0.25, 0.125])


@pytest.mark.parametrize("keep", ["[0.5", "0.5]", "[[0.5]]", "[]", "[0.5,half]"])
def test_half_a_list(seeless, keep):
    outcome = seeless("run", "--model", "tiny", "--strategy", "pyramiddrop", "--layer", "2", "--keep", keep)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and "keep" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--strategy", "vispruner", "--keep", 9, "--visual_token_num", 9),
        ("sweep", "--strategies", "vispruner", "--visual_token_num", 9),
        ("bench", "--quick", "--visual_token_num", 9),
    ],
)
def test_a_field_twice(seeless, arguments):
    outcome = seeless(*arguments)
    assert outcome.code == 2 and "--visual_token_num is --keep here; give --keep alone" in outcome.err


def test_the_page_s_tasks_are_there():
    from seeless.eval.tasknames import lmms_eval_folder, task_names

    page = PAGE.read_text()
    named = set(re.findall(r"--tasks (\w+)", page)) | set(re.findall(r"`(\w+_(?:val|dev))`", page))
    assert len(named) >= 15 and named <= set(task_names(lmms_eval_folder()))
