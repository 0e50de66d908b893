"""What is printed can be read in a narrow terminal: no line is too long, and no word is broken or left out."""

import re
from collections import Counter

import pytest

from seeless.cli import console
from seeless.cli.cards import cards

WIDTHS = (60, 80, 100)


def in_words(text):
    return Counter(text.split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("arguments", "heads"),  # what stands over the first column stands nowhere in paragraphs
    [
        (["list"], ("name",)),
        (["info", "fastv"], ("flag",)),
        (["info", "vtr:clse"], ("flag",)),
        (["info"], ()),
        (["eval", "--list"], ("--model", "--method")),
    ],
    ids=str,
)
def test_tables_of_the_command_line(seeless, monkeypatch, arguments, heads, width):
    monkeypatch.setenv("COLUMNS", "4000")
    wide = seeless(*arguments).out
    monkeypatch.setenv("COLUMNS", str(width))
    narrow = seeless(*arguments).out
    sentences = {line.rstrip() for line in wide.splitlines()}  # what is never wrapped: paragraphs beside tables
    long = [line for line in narrow.splitlines() if len(line.rstrip()) > width and line.rstrip() not in sentences]
    assert long == []
    assert set(in_words(wide)) - set(in_words(narrow)) <= set(heads)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_of_the_list(seeless, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    out = seeless("list").out
    for card in cards():
        assert re.search(rf"^{re.escape(card.name)}( |$)", out, re.MULTILINE), card.name


@pytest.mark.parametrize("width", (20, 40, 60, 80, 120, 300))
def test_a_table_as_wide_as_there_is_room(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    prose = "eight short words that may wrap any time " * 3
    rows = [["first", "1.5", prose, "x=1, y=2"], ["the second", "", prose, "z"], ["third", "2", "", ""]]
    console.print_table(["name", "a number", "prose", "fields"], rows)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= width
    assert in_words(" ".join(cell for row in rows for cell in row)) <= in_words(" ".join(lines))
    if width >= 60:
        assert lines[0].split() == ["name", "a", "number", "prose", "fields"]
        assert lines[1].startswith("first       1.5       eight")
    else:
        assert lines[0] == "first" and re.match(r"  a( number)? +1\.5", lines[1])
        assert "" in lines and "the second" in lines


def test_a_table_of_nothing(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    console.print_table(["name", "value"], [])
    assert capsys.readouterr().out.split() == ["name", "value"]


def test_a_pipe_is_wide_unless_told(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console.console().width == 160
    monkeypatch.setenv("COLUMNS", "72")
    assert console.console().width == 72


@pytest.mark.parametrize("verb", ["run", "train", "eval", "sweep", "plot", "info", "list"])
def test_options_are_named_in_full(seeless, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "100")
    names = set(re.findall(r"^│ (--[a-z][a-z-]+)", seeless(verb, "-h").out, re.MULTILINE))
    assert names >= {"--help"}
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        out = seeless(verb, "-h").out
        assert "…" not in out and all(len(line.rstrip()) <= width for line in out.splitlines())
        assert set(re.findall(r"--[a-z][a-z-]+", out)) >= names
