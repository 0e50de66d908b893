"""Points and pictures of sweeps, and the command that draws them."""

import itertools
import json

import pytest
from PIL import Image, ImageColor

from seeless.cli.main import main
from seeless.eval.drawing import drawn_from, styles_of
from seeless.eval.errors import InvalidRequest
from seeless.eval.plot import fingerprint, plot
from seeless.eval.points import metrics, points
from seeless.jsonl import append_lines


def row(strategy, keep, value, tokens, *, seed=None, agreement=0.9, **more):
    score = {"value": value, "n": 10, "low": value - 0.1, "high": value + 0.1}
    common = {"model": "tiny", "weights": "w", "fields": None, "tasks": ["t"], "limit": None, "seed": seed}
    return {
        **common,
        **{"strategy": strategy, "keep": keep, "scores": {"t": {"accuracy": score, "digit": {**score, "value": 0.1}}}},
        "loyalty": {"agreement": {"value": agreement, "n": 10, "low": None, "high": None}, "kl": 0.5, "kl_n": 10},
        **{"tokens": {"average": tokens}, "flops": {"share": tokens / 144}, **more},
    }


REFUSED = {**row("evs", 0.5, 0, 0), "refused": "it dropped nothing"}
ROWS = [
    row("none", 1.0, 0.95, 144, agreement=1.0),
    row("random", 0.5, 0.8, 72, seed=0),
    row("random", 0.5, 0.6, 72, seed=1),
    row("fastv", 0.5, 0.9, 90),
    row("fastv", 0.25, 0.85, 63),
    REFUSED,
]


def test_points_are_means_over_seeds_and_leave_out_refusals():
    found = {(point.strategy, point.keep): point for point in points(ROWS)}
    assert set(found) == {("none", 1.0), ("random", 0.5), ("fastv", 0.5), ("fastv", 0.25)}
    random = found["random", 0.5]
    assert (random.value, random.low, random.high) == pytest.approx((0.7, 0.6, 0.8))
    assert (random.tokens, random.flops, random.metric) == (72, 0.5, "accuracy")
    assert found["fastv", 0.5].agreement == 0.9 and found["fastv", 0.5].kl == 0.5


def test_of_a_run_made_twice_the_last_row_counts():
    (point,) = points([ROWS[3], {**row("fastv", 0.5, 0.2, 10)}])
    assert (point.value, point.tokens) == (0.2, 10)


def test_other_metrics():
    assert metrics(ROWS) == ["accuracy", "digit", "agreement"]
    assert {point.value for point in points(ROWS, "digit")} == {0.1}
    assert points(ROWS, "agreement")[0].value == 1.0 and points(ROWS, "count") == []


@pytest.mark.parametrize("name", ["a.png", "a.svg", "deep/a.pdf"])
def test_a_picture_is_drawn(tmp_path, name):
    plot(ROWS, tmp_path / name, made_of="these rows")
    assert (tmp_path / name).stat().st_size > 5000
    if name.endswith("png"):
        assert drawn_from(tmp_path / name) == "these rows"
        assert Image.open(tmp_path / name).size[0] > 1000


def test_no_two_methods_look_alike():
    """Where a colour comes again, the line and the marker are others; colours lie well apart."""
    styles = list(styles_of(f"method_{i:02}" for i in range(40)).values())
    assert len(styles) == 40
    for one, other in itertools.combinations(styles, 2):
        if one["color"] == other["color"]:
            assert one["linestyle"] != other["linestyle"] and one["marker"] != other["marker"]
        else:
            pairs = zip(ImageColor.getrgb(one["color"]), ImageColor.getrgb(other["color"]), strict=True)
            assert sum((a - b) ** 2 for a, b in pairs) > 50**2


def test_every_task_has_panels_of_its_own(tmp_path):
    other = [{**each, "scores": {"u": each["scores"]["t"]}, "tasks": ["u"]} for each in ROWS]
    plot(ROWS, tmp_path / "one.png")
    plot([*ROWS, *other], tmp_path / "two.png")
    heights = [Image.open(tmp_path / name).size[1] for name in ("one.png", "two.png")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InvalidRequest, match="accuracy, digit, agreement"):
        plot(ROWS, tmp_path / "a.png", "acuracy")
    with pytest.raises(InvalidRequest, match=r"\.png, \.svg or \.pdf"):
        plot(ROWS, tmp_path / "a.gif")


def test_the_fingerprint_changes_with_what_is_drawn(tmp_path):
    file = tmp_path / "rows.jsonl"
    append_lines(file, ROWS[0])
    before = fingerprint([file])
    assert before == fingerprint([file]) != fingerprint([file], "agreement")
    append_lines(file, ROWS[1])
    assert fingerprint([file]) != before


def test_the_command_draws_and_names_broken_lines(tmp_path, capsys):
    file, picture = tmp_path / "rows.jsonl", tmp_path / "sweep.png"
    for each in ROWS:
        append_lines(file, each)
    with file.open("a") as out:
        out.write(json.dumps(ROWS[0])[:50])
    with pytest.raises(SystemExit) as end:
        main(["plot", str(file), "--output", str(picture)])
    captured = capsys.readouterr()
    assert not end.value.code and "5 runs, 1 refused" in captured.out and "line 7: no JSON" in captured.err
    assert drawn_from(picture) == fingerprint([file])
    with pytest.raises(SystemExit) as end:
        main(["plot", str(tmp_path / "missing.jsonl")])
    assert end.value.code and "there is no file" in capsys.readouterr().err
