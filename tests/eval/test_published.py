"""The table of published figures: what is in it, what matches a run, and what judges a measured value."""

import csv
from pathlib import Path

import pytest

from seeless.eval import published
from seeless.eval.beside import compare, matching, nominal_budget
from seeless.eval.errors import InvalidRequest
from seeless.eval.published import chosen, figures
from seeless.registry import available

DATA = Path(__file__).parents[2] / "data"
LLAVA = "llava-hf/llava-1.5-7b-hf"
# Copied by hand from the FasterVLM project page: LLaVA-1.5-7B, 144 tokens.
FASTERVLM_PAGE = {
    "fastv": {"gqa": 56.58, "pope": 73.74, "scienceqa_img": 69.11, "mme": 1463.39, "mmbench_en_dev": 64.00},
    "fastervlm": {"gqa": 58.34, "pope": 83.46, "scienceqa_img": 67.92, "mme": 1433.76, "mmbench_en_dev": 62.54},
}


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.syspath_prepend(str(DATA))
    import make_published

    return make_published


def test_the_shipped_table_is_made_of_the_data(maker, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_published.py", "--check"])
    with pytest.raises(SystemExit) as end:
        maker.main()
    assert not end.value.code
    with (DATA / "published.csv").open(newline="") as file:
        printed = list(csv.DictReader(file))
    names = ("method", "model", "benchmark", "budget", "metric", "source")
    assert len(printed) == 4623
    assert [[row[n] for n in names] + [float(row["value"])] for row in printed] == [
        [getattr(figure, n) for n in names] + [figure.value] for figure in figures()
    ]


def test_budgets_as_printed(maker):
    printed = {
        **{"64x32": (2048, None), "11.1%": (None, 0.111), "288 from layer 3": (288, None), "variable": (None, None)},
        **{"9.8% (TFLOP 10.79%)": (None, 0.098), "TFLOP 15.69%": (None, None), "56 (ratio 0.098)": (56, None)},
    }
    assert {text: maker.tokens_and_share(text) for text in printed} == printed


def test_names_are_those_of_seeless():
    printed = {figure.strategy: figure.method.lower() for figure in figures() if figure.strategy}
    for name, method in printed.items():
        assert name in available() or name in ("none", method), f"{method} is called {name}, which no method is"
    assert {"fastv", "pyramiddrop", "prumerge_plus", "none"} <= set(printed)


def test_figures_agree_with_their_page():
    for method, values in FASTERVLM_PAGE.items():
        own = [figure for figure in matching(method, {"keep": 144}, LLAVA) if figure.source == "fastervlm-page"]
        found = {figure.task: figure.value for figure in own if figure.task in values}
        assert found == values
    untouched = {figure.task: figure.value for figure in matching("none", None, LLAVA) if figure.source == "clse-1"}
    assert untouched["gqa"] == 61.9 and untouched["pope"] == 85.9


def test_every_number_of_tokens_matches_its_figures_alone_and_so_does_its_share():
    own = [f for f in figures() if (f.strategy, f.checkpoint) == ("fastv", LLAVA) and f.task and f.budget.isdigit()]
    for keep in range(1, 577):
        expected = [figure for figure in own if int(figure.budget) == keep]
        fields = ({"keep": keep}, {"keep": keep / 576}, {"keep": 1.0, "average": keep}, {"keep_tokens": keep})
        for each in fields if keep < 576 else fields[:1]:
            found = matching("vtr:fastv" if "keep_tokens" in each else "fastv", each, LLAVA)
            assert [figure for figure in found if figure.budget.isdigit()] == expected
    assert {figure.budget for figure in own} == {"192", "144", "128", "64", "58", "32", "29", "288", "432"}


def test_shares_per_crop_lists_and_folders():
    next_7b = "llava-hf/llava-v1.6-vicuna-7b-hf"
    assert matching("vispruner", {"keep": 64, "scope": "crop"}, next_7b) == matching(
        "vispruner", {"keep": 320, "scope": "row"}, next_7b
    )
    assert matching("vispruner", {"keep": 64, "scope": "crop"}, next_7b)[0].budget == "320"
    assert matching("clse", {"keep": 0.1111}, "Qwen/Qwen2-VL-7B-Instruct")
    assert not matching("clse", {"keep": 0.12}, "Qwen/Qwen2-VL-7B-Instruct")
    assert not matching("vispruner", {"keep_tokens": 320}, next_7b) and matching(
        "vispruner", {"keep_ratio": 1 / 9}, next_7b
    )
    assert nominal_budget({"keep": [0.5, 0.25]}) is None and nominal_budget({"keep": None}) is None
    assert nominal_budget({"keep": 0.5, "threshold": 0.1}) is None
    assert not matching("pyramiddrop", {"keep": [192, 128, 64]}, LLAVA)
    assert not matching("fastv", {"keep": 128}, "models/llava-1.5-7b-hf")


def test_suspect_figures_and_other_settings_judge_nothing():
    shifted = [figure for figure in matching("fastv", {"keep": 192}, LLAVA) if figure.task == "pope"]
    assert len(shifted) == 3 and all("one column apart" in figure.suspect for figure in shifted)
    (one,) = compare(shifted, [("pope", "pope_f1_score", 0.1)])
    assert (one.apart, one.trusted, one.measured) == (None, [], 10.0)
    (text,) = compare(matching("none", None, LLAVA), [("textvqa_val", "exact_match", 0.46)])
    assert text.figures and text.apart is None
    trusted = {figure.value for figure in matching("fastv", {"keep": 64}, LLAVA) if figure.task == "pope"} - {59.6}
    for measured in (0.1, 0.355, 0.4, 0.48, 0.7):
        (one,) = compare(matching("fastv", {"keep": 64}, LLAVA), [("pope", "pope_f1_score", measured)])
        nearest = min(max(100 * measured, min(trusted)), max(trusted))
        assert one.apart == pytest.approx(100 * measured - nearest, abs=1e-4)


def test_whole_tables_that_are_suspect():
    for source in ("vispruner-page-next", "dart-1", "dart-others"):
        assert all(figure.suspect for figure in figures() if figure.source == source)
    for source in ("eadp-3", "eadp-4"):
        own = [figure for figure in figures() if figure.source == source]
        assert own and all((figure.strategy == "none") != bool(figure.suspect) for figure in own)
    vscan = [figure for figure in figures() if figure.source == "vscan-1" and figure.strategy == "vscan"]
    assert {figure.budget for figure in vscan if figure.suspect} == {"128", "64"}
    assert not any(figure.trusted and figure.suspect for figure in figures())


def test_one_task_in_two_units():
    (one,) = compare(matching("none", None, LLAVA), [("ocrbench", "ocrbench_accuracy", 0.297)])
    assert one.measured == 29.7 and one.apart == 0


@pytest.mark.parametrize(
    ("asked", "count", "own"),
    [
        ({"method": "PDrop", "model": "LLaVA-1.5-7B", "benchmark": "MMB", "budget": "64"}, 5, "pyramiddrop"),
        ({"method": "vtr:fastv", "model": "llava", "benchmark": "gqa", "budget": "25%"}, 1, "fastv"),
        ({"method": "fastv", "model": "liuhaotian/llava-v1.5-7b", "benchmark": "gqa", "budget": "0.25"}, 1, "fastv"),
    ],
)
def test_figures_are_chosen_by_either_name(asked, count, own):
    found = chosen(**asked)
    assert len(found) == count and {figure.strategy for figure in found} == {own}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"method": "fastvv"}, "did you mean fastv"),
        ({"method": "evs"}, "of the method 'evs'; there are "),
        ({"benchmark": "gqaa"}, "did you mean "),
        (
            {"method": "hiprune", "model": "Qwen3-VL-8B"},
            "of the model 'Qwen3-VL-8B' and the rest; there are LLaVA-1.5-7B",
        ),
        ({"method": "fastv", "model": "llava", "budget": "77"}, "for the budget '77'; there are "),
        ({"budget": "some"}, "for the budget 'some'"),
    ],
)
def test_names_that_nothing_has(asked, message):
    with pytest.raises(InvalidRequest, match=message):
        chosen(**asked)


def test_without_pyarrow(monkeypatch):
    monkeypatch.setattr(published, "can_read", lambda: False)
    with pytest.raises(ImportError, match=r'pip install "seeless\[published\]"'):
        figures()
