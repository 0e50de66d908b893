"""The numbers of a report against counts by hand, the model's own cache, and torch's counter of operations."""

import json

import pytest
import torch
from by_hand import SIDE, tile_cells
from PIL import Image
from test_decoder_attention import build, inputs
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

import seeless as sl
import tinies
from seeless import models
from seeless.core import capture
from seeless.core.host import CACHE
from seeless.vtr import VTRConfig
from tinies import TINIES
from tiny_models import CROP, LAYERS, PATCH, RAGGED, VARIANTS, make_inputs, picture

every = pytest.mark.parametrize("variant", VARIANTS, ids=str)
LLAVA, NEXT = VARIANTS[1], VARIANTS[4]


@torch.no_grad()
def prefill(model, strategy, inputs, **options):
    with sl.apply(model, strategy) as run:
        out = model(**inputs, **options)
    return run.report, out


def test_tokens_by_hand(tiny):
    """RAGGED on LLaVA-1.5: 1, 2, 0 and 1 images of 16 tokens; 14, 13, 14 and 5 text tokens."""
    model = tiny(LLAVA, "sdpa")
    report, _ = prefill(model, sl.FastV(keep=0.5, layer=2), make_inputs(model, LLAVA, RAGGED))
    assert report.n_before == [16, 32, 0, 16] and report.n_after == [8, 16, 0, 8]
    assert report.text == [14, 13, 14, 5]
    assert report.visual == [[16, 32, 0, 16]] * 2 + [[8, 16, 0, 8]] * 4
    assert report.average_tokens == pytest.approx((2 * 64 + 4 * 32) / 6 / 3)
    assert report.share == pytest.approx((2 * 64 + 4 * 32) / (6 * 64))
    first = str(report).splitlines()[0]
    assert first == "16-32 -> 8-16 from layer 2 (fastv) · 14 visual tokens per layer on average (67 %)"


def test_without_stages(tiny):
    """A layer outside the model never fires in PriorTR's framework: the report says that nothing was dropped."""
    model = tiny(LLAVA, "sdpa")
    report, _ = prefill(model, VTRConfig(prune_layer=99), make_inputs(model, LLAVA, [RAGGED[0]]))
    assert (report.stages, report.n_before, report.n_after) == ([], [16], [16])
    assert str(report).startswith("nothing dropped · 16 visual tokens per layer on average (100 %)")
    image = Image.new("RGB", (64, 64), "white")
    assert report.overlay(image).tobytes() == image.tobytes()


def test_several_stages_by_hand(tiny):
    model = tiny(LLAVA, "sdpa")
    strategies = [sl.VisPruner(keep=12), sl.FastV(keep=[0.5, 3], layer=[2, 5])]
    report, _ = prefill(model, strategies, make_inputs(model, LLAVA, [RAGGED[0]]))
    assert report.visual == [[12], [12], [8], [8], [8], [3]]
    assert report.average_tokens == pytest.approx(51 / 6) and report.share == pytest.approx(51 / 96)
    text = str(report)
    assert "16 -> 12 at the entry (vispruner), 12 -> 8 from layer 2 (fastv), 8 -> 3 from layer 5 (fastv)" in text
    assert "8 visual tokens per layer on average (53 %)" in text
    for cost in (report.flops_before, report.flops_after):
        assert f"{cost.decoder / 1e9:.3g}" in text and f"{cost.total / 1e9:.3g}" in text
    assert f"KV cache {report.kv_bytes_before / 2**20:.3g} -> {report.kv_bytes_after / 2**20:.3g} MiB" in text


@every
@pytest.mark.parametrize("past", ["keep", "trim"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kv_bytes_are_those_of_the_cache(variant, past, dtype):
    model = variant.build("sdpa", dtype)
    inputs = make_inputs(model, variant, [RAGGED[1], RAGGED[1]])
    with torch.no_grad():
        plain = model(**inputs)[CACHE]
    for strategy in (
        sl.FastV(keep=[0.5, 0.25], layer=[2, 4], past=past),
        sl.PriorTR(keep=5, past=past),
        sl.Random(keep=[0.5, 0.25], layer=[0, 3], past=past),
        [sl.FasterVLM(keep=6, past=past), sl.FastV(keep=4, past=past)],
        sl.FastV(keep=1.0, past=past),
    ):
        report, out = prefill(model, strategy, inputs)

        def held(cache):
            return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

        assert report.kv_bytes_after == held(out[CACHE])
        assert report.kv_bytes_before == held(plain)


@pytest.mark.parametrize("make", [DynamicCache, lambda: None], ids=["given", "the model's own"])
@torch.no_grad()
def test_kv_bytes_are_those_of_the_cache_where_it_is_compressed(make):
    """DeepSeek V3 caches what keys and values are made of, in some releases, not these."""
    model, given = build("deepseek_v3", "sdpa", torch.float32), inputs(torch.float32)  # without padding
    with sl.apply(model, sl.FastV(keep=5, layer=2)) as run:
        cache = model(**given, **{CACHE: make()})[CACHE]
    assert run.report.kv_bytes_after == sum(own.keys.nbytes + own.values.nbytes for own in cache.layers)


@pytest.mark.parametrize("past", ["keep", "trim"])
def test_kv_bytes_of_a_ragged_batch_leave_padding_out(tiny, past):
    """Rows of 30, 45, 14 and 21 tokens, of which 8, 16, 0 and 8 leave before layer 2."""
    model = tiny(LLAVA, "sdpa")
    report, _ = prefill(model, sl.FastV(keep=0.5, layer=2, past=past), make_inputs(model, LLAVA, RAGGED))
    token = 2 * 2 * 16 * 4  # keys and values, kv heads, head size, bytes
    assert report.kv_bytes_before == 6 * 110 * token
    assert report.kv_bytes_after == (2 * 110 + 4 * 78 if past == "keep" else 6 * 78) * token


@pytest.mark.parametrize("past", ["keep", "trim"])
def test_kv_bytes_where_the_longest_row_loses_nothing(tiny, past):
    """Rows of 60 and 30 tokens, of which 0 and 8 leave before layer 2."""
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[60], [5, "image:0", 9]])
    report, _ = prefill(model, sl.FastV(keep=0.5, layer=2, past=past), inputs)
    token = 2 * 2 * 16 * 4
    assert report.kv_bytes_before == 6 * 90 * token
    assert report.kv_bytes_after == (2 * 90 + 4 * 82 if past == "keep" else 6 * 82) * token


def test_without_a_cache_there_are_no_kv_bytes(tiny):
    model = tiny(LLAVA, "sdpa")
    report, _ = prefill(model, sl.FastV(keep=0.5), make_inputs(model, LLAVA, RAGGED), use_cache=False)
    assert report.kv_bytes_before == report.kv_bytes_after == 0
    assert "KV cache" not in str(report)


def counted(model, strategy, inputs):
    """Operations by module, as torch counts them, and the report."""
    with torch.no_grad(), sl.apply(model, strategy) as run, FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=1)
    name = type(model).__name__
    return {
        key.removeprefix(f"{name}."): sum(by_kind.values()) for key, by_kind in counter.get_flop_counts().items()
    }, run.report


@every
def test_flops_are_what_torch_counts(tiny, variant):
    """Without scoring, every number is exact: tower, projector, each decoder layer, lm_head."""
    model = tiny(variant, "eager")
    inputs = make_inputs(model, variant, [RAGGED[1], RAGGED[1]])
    flops, report = counted(model, sl.Random(keep=[0.6, 0.3], layer=[0, 3]), inputs)
    after = report.flops_after
    assert after.tower == flops["model.vision_tower"]
    assert after.projector == flops["model.multi_modal_projector"]
    assert after.lm_head == flops["lm_head"]
    assert after.decoder == sum(flops[f"model.language_model.layers.{i}"] for i in range(LAYERS))
    assert after.total == after.tower + after.projector + after.decoder + after.lm_head

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=1)
    assert sum(counter.get_flop_counts()["Global"].values()) == report.flops_before.total


@every
def test_scoring_is_all_that_is_left_out(variant, monkeypatch):
    """FastV's own work: one query multiplied with all keys, once; the layer before it made both.

    And the first time, once more and with all values, to see that the model's attention is what is read.
    """
    monkeypatch.setattr(capture, "_checked", set())
    model = variant.build("eager")
    inputs = make_inputs(model, variant, [RAGGED[0]])
    strategy = sl.FastV(keep=0.5, layer=2)
    first, _ = counted(model, strategy, inputs)
    flops, report = counted(model, strategy, inputs)
    scoring = 2 * inputs["input_ids"].shape[1] * 64
    assert first["model.language_model.layers.2"] - flops["model.language_model.layers.2"] == 2 * scoring
    assert first["Global"] - flops["Global"] == 2 * scoring
    layers = [flops[f"model.language_model.layers.{i}"] for i in range(LAYERS)]
    assert sum(layers) - report.flops_after.decoder == scoring
    assert layers[2] - layers[3] == scoring  # spent on entering layer 2
    assert scoring < 0.01 * report.flops_after.decoder


def test_published_figures():
    """Vicuna-7B, visual tokens only, multiply-accumulates: the tables of PyramidDrop and FastV."""
    from seeless.flops import Dimensions, decoder_layer_flops

    vicuna = Dimensions(
        4096, (4 * 4096**2,) * 32, (3 * 4096 * 11008,) * 32, 32, 32, 128, 32000, 24, 1024, 4096, 588, 20971520
    )

    def tera(visual_per_layer):
        return sum(decoder_layer_flops(vicuna, n) for n in visual_per_layer) / 2e12

    assert tera([576] * 32) == pytest.approx(3.82, abs=0.005)
    assert tera([2880] * 32) == pytest.approx(20.8, abs=0.05)
    assert tera([576] * 8 + [288] * 8 + [144] * 8 + [72] * 8) == pytest.approx(1.78, abs=0.005)
    assert tera([576] * 10 + [288] * 10 + [144] * 12) == pytest.approx(2.13, abs=0.005)
    for tokens, published in ((192, 1.253), (128, 0.833), (64, 0.416)):
        assert tera([tokens] * 32) == pytest.approx(published, abs=0.001)
        assert tera([576] * 3 + [tokens] * 29) == pytest.approx({192: 1.493, 128: 1.113, 64: 0.734}[tokens], abs=0.001)


@every
def test_to_dict_is_plain_json(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    for strategy in (
        [sl.FasterVLM(keep=5), sl.PriorTR(keep=3)],
        sl.PyramidDrop(),
        sl.Pool(keep=4),
        sl.FastV(keep=1.0),
        sl.VisPruner(keep=5, newlines=True),
    ):
        report, _ = prefill(model, strategy, inputs)
        data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert data == report.to_dict()
        assert data["average_tokens"] == report.average_tokens and data["share"] == report.share
        assert data["flops_after"]["total"] == report.flops_after.total
        for stage, done in zip(data["stages"], report.stages, strict=True):
            assert stage["layer"] == done.layer and stage["strategy"] == done.strategy
            assert stage["n_before"] == done.n_before and stage["n_after"] == done.n_after
            assert [len(kept) for kept in stage["kept"]] == done.n_after
            if done.scores is not None:
                assert [len(scores) for scores in stage["scores"]] == done.n_before


@torch.no_grad()
def test_a_report_for_every_prefill_the_latest_last(tiny):
    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, "fastv", keep=0.5) as run:
        for row in (RAGGED[0], RAGGED[2], RAGGED[1]):
            model.generate(**make_inputs(model, LLAVA, [row]), max_new_tokens=2)
    assert [report.n_before for report in run.reports] == [[16], [32]]  # the row without an image makes none
    assert run.report is run.reports[-1]


@torch.no_grad()
def test_reports_are_bounded(tiny):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [[1, "image:0", 1]])
    with sl.apply(model, "uniform", keep=1) as run:
        for _ in range(260):
            model(**inputs, logits_to_keep=1)
    assert len(run.reports) == 256


# Overlays.


def bright(variant, size, kept, width, height):
    """`[height, width]` bool, True where a kept token shows what was there; sides are multiples of all cells."""
    light = torch.zeros(height, width, dtype=torch.bool)

    def paint(row, column, rows, columns, x, y, w, h):
        light[
            y + row * h // rows : y + (row + 1) * h // rows, x + column * w // columns : x + (column + 1) * w // columns
        ] = True

    square = min(width, height)
    if variant.family == "llava":  # the tower saw the centre square
        for token in kept:
            x, y = (width - square) // 2, (height - square) // 2
            paint(token // SIDE, token % SIDE, SIDE, SIDE, x, y, square, square)
        return light
    lines, _ = tile_cells(size)
    place = {}
    for token in range(SIDE * SIDE):
        place[token] = (token // SIDE, token % SIDE, SIDE, SIDE)
    token = SIDE * SIDE
    for row, line in enumerate(lines):
        for column in range(len(line)):
            place[token] = (row, column, len(lines), len(line))
            token += 1
        token += 1  # the newline shows nothing
    for token in kept:
        if token in place:
            paint(*place[token], 0, 0, width, height)
    return light


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64), (64, 100)])
def test_overlay_darkens_what_was_dropped(tiny, width, height):
    image_module = pytest.importorskip("PIL.Image")
    model = tiny(LLAVA, "sdpa")
    strategy = [sl.FasterVLM(keep=9), sl.FastV(keep=4)]
    rows = [[3, "image:0", 4], [3, "image:1", 4, "image:2", 6]]
    report, _ = prefill(model, strategy, make_inputs(model, LLAVA, rows))
    assert CROP // PATCH == SIDE
    original = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image = image_module.fromarray(original.numpy())
    for row, picture_number in ((0, 0), (1, 0), (1, 1)):
        for stage in (0, -1):
            drawn = report.overlay(image, row=row, picture=picture_number, stage=stage)
            assert drawn.size == image.size and drawn.mode == "RGB"
            first = 16 * picture_number
            kept = [k - first for k in report.stages[stage].kept[row].tolist() if first <= k < first + 16]
            check_picture(drawn, original, bright(LLAVA, None, kept, width, height))
    assert torch.equal(pixels_of(image), original)


@pytest.mark.parametrize("number", range(4))
def test_overlay_of_tiles(tiny, number):
    image_module = pytest.importorskip("PIL.Image")
    model = tiny(NEXT, "sdpa")
    _, size = picture(NEXT, number)
    lines, _ = tile_cells(size)
    height, width = 4 * len(lines), 4 * len(lines[0])
    original = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    for strategy in (sl.FasterVLM(keep=2), sl.FastV(keep=0.2)):
        report, _ = prefill(model, strategy, make_inputs(model, NEXT, [[3, f"image:{number}", 4]]))
        drawn = report.overlay(image_module.fromarray(original.numpy()))
        light = bright(NEXT, size, report.stages[-1].kept[0].tolist(), width, height)
        assert light.any() and not light.all()
        check_picture(drawn, original, light)


def pixels_of(image):
    import numpy as np

    return torch.from_numpy(np.array(image))


def check_picture(drawn, original, light):
    have = pixels_of(drawn)
    assert torch.equal(have[light], original[light])
    assert ((have[~light] - original[~light] * 0.25).abs() <= 1).all()


def test_overlay_of_a_grey_image_and_of_everything(tiny):
    image_module = pytest.importorskip("PIL.Image")
    model = tiny(LLAVA, "sdpa")
    report, _ = prefill(model, sl.FastV(keep=1.0), make_inputs(model, LLAVA, [RAGGED[0]]))
    image = image_module.new("L", (32, 32), 200)
    drawn = report.overlay(image)
    assert drawn.mode == "RGB" and (pixels_of(drawn) == 200).all()


def test_overlay_without_pillow_names_the_extra(tiny, monkeypatch):
    import sys

    model = tiny(LLAVA, "sdpa")
    report, _ = prefill(model, sl.FastV(keep=0.5), make_inputs(model, LLAVA, [RAGGED[0]]))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(sl.MissingExtra, match=r'pip install "seeless\[cli\]"'):
        report.overlay(object())


@every
@torch.no_grad()
def test_every_row_alone(tiny, variant):
    """Costs of the rows of a ragged batch are those of the rows run one by one, and add up to the batch's."""
    model = tiny(variant, "sdpa")
    strategy = sl.PriorTR2F(keep=0.5, layer=2)
    report, _ = prefill(model, strategy, make_inputs(model, variant, RAGGED))
    assert sum(before for before, _ in report.row_flops) == report.flops_before.total
    assert sum(after for _, after in report.row_flops) == report.flops_after.total
    for row in (0, 1, 3):
        alone, _ = prefill(model, strategy, make_inputs(model, variant, [RAGGED[row]]))
        assert report.row_flops[row] == (alone.flops_before.total, alone.flops_after.total) == alone.row_flops[0]
    assert report.row_flops[2] == (models.text_flops(model, 14),) * 2


@pytest.mark.parametrize(
    ("family", "kind"), [pytest.param(t, kind, id=f"{t}-{kind}") for t in TINIES for kind in t.kinds]
)
@torch.no_grad()
def test_every_row_alone_on_every_family(family, kind):
    """Pictures find their rows: images, tiles, frames, and both kinds in one batch."""
    model = family.build("sdpa" if "sdpa" in family.backends else "eager")
    rows = tinies.RAGGED if kind == "image" else tinies.RAGGED_VIDEO
    report, _ = prefill(model, sl.FastV(keep=0.5, layer=2), tinies.make_inputs(model, family, rows))
    totals = report.flops_before.total, report.flops_after.total
    sums = tuple(map(sum, zip(*report.row_flops, strict=True)))
    if family.name in ("mistral3", "llava-pixtral", "lighton_ocr"):  # the tower looks over the pictures of all rows
        assert sums[0] < totals[0] and totals[0] - sums[0] == totals[1] - sums[1]
    else:
        assert sums == totals
    for row, own in zip(rows, report.row_flops, strict=True):
        if family.name == "ovis2":  # gives every picture the mean of what the projector takes in
            break
        if any(isinstance(part, str) for part in row):
            alone, _ = prefill(model, sl.FastV(keep=0.5, layer=2), tinies.make_inputs(model, family, [row]))
            assert alone.row_flops == [own]
