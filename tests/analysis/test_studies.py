"""From readings to numbers, against sums written out; and a file of what is gathered."""

import numpy as np
import pytest

import seeless as sl
from seeless.analysis import AttentionDispersion, AttentionShift, Gathered, OtherStudy, Reading, Seen
from seeless.analysis.gathering import load, save

LAYERS, VISUAL = (0, 1, 3), 16


def reading(seed, visual=VISUAL, tower=True):
    numbers = np.random.default_rng(seed)
    last, full, image, text = numbers.random((4, len(LAYERS), visual)) ** 3
    share = numbers.random(len(LAYERS))
    return Reading(LAYERS, last, full, image, text, share, numbers.random(visual) if tower else None, (4, visual // 4))


def gathered(study, readings):
    layers, found = study.layers(LAYERS), Gathered()
    for number, each in enumerate(readings):
        found = found.with_one(f"picture {number}", study.measure(Seen(None, {}, each), layers))
    return found


READINGS = [reading(seed) for seed in range(3)]


def test_shift_is_the_mean_over_pictures():
    numbers = AttentionShift().numbers(gathered(AttentionShift(), READINGS))
    assert numbers["layers"] == list(LAYERS)
    for kind in ("full", "image", "text", "last"):
        for at in range(len(LAYERS)):
            mean = [sum(getattr(each, kind)[at][j] for each in READINGS) / 3 for j in range(VISUAL)]
            assert numbers[kind]["attention"][at] == pytest.approx(mean)
            assert numbers[kind]["last_quarter"][at] == pytest.approx(sum(mean[12:]) / sum(mean))
            rank = [sum(other <= value for other in mean) - 1 for value in mean]
            apart = sum((rank[j] - j) ** 2 for j in range(VISUAL))  # Spearman without ties
            assert numbers[kind]["rising"][at] == pytest.approx(1 - 6 * apart / (VISUAL * (VISUAL**2 - 1)))
    assert len(numbers["tower"]["attention"]) == VISUAL


def test_dispersion_sorts_each_picture_before_the_mean():
    numbers = AttentionDispersion().numbers(gathered(AttentionDispersion(), READINGS))
    assert numbers["layer"] == 1
    for kind, rows in {"last": [each.last[1] for each in READINGS], "tower": [each.tower for each in READINGS]}.items():
        shares = [sorted((value / sum(row) for value in row), reverse=True) for row in rows]
        curve = [sum(sum(own[: rank + 1]) for own in shares) / 3 for rank in range(VISUAL)]
        assert numbers[kind]["curve"] == pytest.approx(curve)
        assert numbers[kind]["top_fifth"] == pytest.approx(curve[2])  # 3 of 16 is nearest to a fifth
        values = np.array(rows, np.float32).ravel().astype(float)
        low, high = min(values) / max(values), 1.0
        bins = [0] * 200
        for value in values / max(values):
            bins[min(199, int((value - low) / (high - low) * 200))] += 1
        told = numbers[kind]["histogram"]
        assert (told["edges"][0], told["edges"][-1]) == pytest.approx((low, high))
        assert np.abs(np.array(told["share"]) * len(values) - bins).sum() <= 2  # one value on an edge


def test_a_tower_that_is_not_read_is_none():
    for study in (AttentionShift(), AttentionDispersion()):
        found = gathered(study, [reading(0, tower=False)])
        numbers = study.numbers(found)
        assert numbers["tower"] is None and any("not read" in row for row in study.table(numbers)[1])


def test_pictures_of_other_sizes_have_no_mean():
    with pytest.raises(sl.InputError, match=r"picture 1.* visual tokens=8, .* visual tokens=16; .*--size 448x448"):
        gathered(AttentionShift(), [reading(0), reading(1, visual=8)])


def test_too_few_layers():
    with pytest.raises(sl.UnsupportedModel, match="second decoder layer"):
        AttentionDispersion().layers([0])


def test_what_was_saved_is_loaded_to_the_bit(tmp_path):
    found = gathered(AttentionDispersion(), READINGS).without_one("broken.png", "no picture")
    save(found, tmp_path / "x.npz", {"model": "m", "size": (4, 4)}, "of 4")
    again = load(tmp_path / "x.npz", {"model": "m", "size": (4, 4)}, lambda count: f"of {count}")
    assert (again.samples, again.done, again.left_out, again.facts) == (3, 4, found.left_out, found.facts)
    for name in found.sums:
        assert (again.sums[name] == found.sums[name]).all() and (again.values(name) == found.values(name)).all()
    with pytest.raises(OtherStudy, match="model='m', not 'other'"):
        load(tmp_path / "x.npz", {"model": "other", "size": (4, 4)}, lambda count: f"of {count}")
    with pytest.raises(OtherStudy, match="not the first 4"):
        load(tmp_path / "x.npz", {"model": "m", "size": (4, 4)}, lambda count: "others")
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(OtherStudy, match="cannot be read"):
        load(tmp_path / "x.npz", {}, lambda count: "")
