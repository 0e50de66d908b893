"""Overlays of every family, tiles and videos included, against places worked out from how their pictures are cut."""

import math

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import seeless as sl
from seeless.core.boxes import arrangement
from tinies import TINIES, make_inputs, make_pieces
from tinies.anyres import best_tiles
from tinies.gemma3 import ADJACENT, BETWEEN, CROPS_FOLLOW
from tinies.llava_next import pinpoints

LAST, FIRST = -1, 0  # the crop that shows the whole picture, and after or before its tiles
WHOLE = {
    "internvl": LAST,
    "smolvlm": LAST,
    "idefics3": LAST,
    "gemma3": FIRST,
    "aya_vision": LAST,
    "cohere2_vision": LAST,
    "lfm2_vl": LAST,
    "minicpmv4_6": FIRST,
    "minicpmv4_7": FIRST,
}
NEWLINES = ("llava_next", "llava_onevision", "granite4_vision")
SHAPES = {1: (1, 1), 2: (2, 1), 3: (1, 3), 4: (2, 2)}  # tiles across and down that the pictures below were cut into
CASES = [(tiny, kind) for tiny in TINIES for kind in tiny.kinds]


def cells_of(tiny, piece):
    """Per token of a piece, its (row, column, rows, columns) in the whole picture; and (across, down) of its tiles."""
    found, crops, shape = {}, list(piece.crops), (1, 1)
    if tiny.name.startswith(NEWLINES) and "image_sizes" in piece.data:
        crop = piece.data["pixel_values"].shape[-1]
        down, across = best_tiles(piece.data["image_sizes"][0].tolist(), pinpoints(crop), crop)
        base, *tiles = crops
        grow = [tiles[r * across][1] for r in range(down)], [tiles[c][2] for c in range(across)]
        for number, (places, _, width) in enumerate(tiles):
            top, left = sum(grow[0][: number // across]), sum(grow[1][: number % across])
            for i, place in enumerate(places):
                found[place] = (top + i // width, left + i % width, sum(grow[0]), sum(grow[1]))
        crops = [base]
    elif tiny.name in WHOLE and len(crops) > 1:
        whole = crops.pop(WHOLE[tiny.name])
        shape = SHAPES[len(crops)]
        for number, (places, height, width) in enumerate(crops):
            top, left = number // shape[0] * height, number % shape[0] * width
            for i, place in enumerate(places):
                found[place] = (top + i // width, left + i % width, shape[1] * height, shape[0] * width)
        crops = [whole]
    for places, height, width in crops:
        found |= {place: (i // width, i % width, height, width) for i, place in enumerate(places)}
    return found, shape


def picture_for(shape, cells):
    """Noise of the shape's proportions in which every cell is whole pixels."""
    width = math.lcm(*(columns for *_, columns in cells.values()))
    height = math.lcm(*(rows for _, _, rows, _ in cells.values()))
    side = math.lcm(width * shape[1], height * shape[0])
    size = (side * shape[0] // math.gcd(*shape), side * shape[1] // math.gcd(*shape))
    noise = torch.randint(1, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Image.fromarray(noise.numpy())


def light_of(picture, cells, kept):
    light = torch.zeros(picture.height, picture.width, dtype=torch.bool)
    for place in kept:
        if place in cells:
            row, column, rows, columns = cells[place]
            high, wide = picture.height // rows, picture.width // columns
            light[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = True
    return light


def lit(drawn, picture):
    have, original = (torch.frombuffer(bytearray(x.tobytes()), dtype=torch.uint8) for x in (drawn, picture))
    return (have == original).view(picture.height, picture.width, 3).all(2)


def check(model, tiny, report, row, number):
    """Every picture of a row, at its place among the row's visual tokens."""
    kept, first = report.stages[0].kept[number].tolist(), 0
    pieces = make_pieces(model, tiny, row)
    for i, piece in enumerate(pieces):
        cells, shape = cells_of(tiny, piece)
        picture = picture_for(shape, cells)
        own = [token - first for token in kept if first <= token < first + piece.tokens]
        drawn = report.overlay(picture, row=number, picture=i)
        assert torch.equal(lit(drawn, picture), light_of(picture, cells, own)), (number, i)
        first += piece.tokens
    with pytest.raises(sl.InputError, match=f"shows {len(pieces)} pictures"):
        report.overlay(picture, row=number, picture=len(pieces))


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Gives a model a tokenizer that reads the text between crops, as Gemma's does."""
    says = {CROPS_FOLLOW: "here are some crops to help you see better", BETWEEN: "\n\n", ADJACENT: "\n\n\n\n"}
    words = {says.get(i, f"w{i}"): i for i in range(100)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    return lambda model: monkeypatch.setattr(model.config, "_name_or_path", str(tmp_path))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
@torch.no_grad()
def test_what_was_kept_is_light(case, tiny, read):
    (own, kind), seeds = case, (1, 3, 0, 2)
    model = tiny(own, "sdpa")
    if own.name == "gemma3":
        read(model)
    rows = [[3, f"{kind}:{seeds[0]}", 4, f"image:{seeds[1]}", 5], [2, f"{kind}:{seeds[2]}", f"{kind}:{seeds[3]}", 3]]
    for share in (0.3, 0.05):
        with sl.apply(model, sl.Random(keep=share, scope="row")) as run:
            model(**make_inputs(model, own, rows))
        for number, row in enumerate(rows):
            check(model, own, run.report, row, number)


@pytest.mark.parametrize("name", [name for name in WHOLE if not name.startswith(("minicpm", "lfm2"))])
@torch.no_grad()
def test_tiles_alone_are_light_where_they_lie(name, tiny, read):
    """Only tokens of tiles stay: nothing is black that was kept."""
    own = next(t for t in TINIES if t.name == name)
    model = tiny(own, "sdpa")
    read(model)
    row = [3, "image:1", 4]
    cells, shape = cells_of(own, make_pieces(model, own, row)[0])

    class Tile(sl.EntryStrategy):
        tower = ()
        scope: sl.strategy.Scope = "row"

        def score(self, ctx):
            tile = torch.tensor([cells[place][2] != 4 or cells[place][3] != 4 for place in range(ctx.n_original)])
            return tile.float()[ctx.index]

    with sl.apply(model, Tile(keep=5)) as run:
        model(**make_inputs(model, own, [row]))
    picture = picture_for(shape, cells)
    light = lit(run.report.overlay(picture), picture)
    assert torch.equal(light, light_of(picture, cells, range(*((16, 21) if WHOLE[name] == FIRST else (0, 5)))))
    assert light.float().mean() == 5 / 32


@torch.no_grad()
def test_crops_that_only_text_tells_apart(tiny):
    """Gemma 3 without a tokenizer: one image is one picture, several cannot be told apart, and that is said."""
    own = next(t for t in TINIES if t.name == "gemma3")
    model = tiny(own, "sdpa")
    with sl.apply(model, sl.Random(keep=0.5)) as run:
        model(**make_inputs(model, own, [[3, "image:0", 4], [3, "image:1", 4]]))
    run.report.overlay(Image.new("RGB", (64, 64)))
    with pytest.raises(sl.InputError, match=r"crops of one picture cannot be read .* no checkpoint with a tokenizer"):
        run.report.overlay(Image.new("RGB", (64, 64)), row=1)


SIZES = [(w, h) for w in (40, 97, 128, 300, 777) for h in (30, 97, 128, 411, 900)]


def test_the_grid_of_tiles_is_what_internvl_chooses():
    processing = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    for width, height in SIZES:
        for most in (4, 6, 12, 40):
            grid = processing.get_optimal_tiled_canvas((height, width), (448, 448), 1, most)
            assert math.prod(grid) == 1 or arrangement(math.prod(grid), width / height) == grid


@pytest.mark.parametrize("family", ["smolvlm", "idefics3"])
def test_the_grid_of_tiles_is_what_processors_cut(family):
    processing = pytest.importorskip(f"transformers.models.{family}.image_processing_pil_{family}")
    cls = {"smolvlm": "SmolVLMImageProcessorPil", "idefics3": "Idefics3ImageProcessorPil"}[family]
    processor = getattr(processing, cls)(size={"longest_edge": 64}, max_image_size={"longest_edge": 16})
    for size in SIZES:
        found = processor(Image.new("RGB", size), return_row_col_info=True)
        rows, columns = found["rows"][0][0], found["cols"][0][0]
        assert rows * columns > 1 and arrangement(rows * columns, size[0] / size[1]) == (columns, rows)


def test_the_grid_of_crops_is_what_gemma_pans():
    processing = pytest.importorskip("transformers.models.gemma3.image_processing_pil_gemma3")
    processor = processing.Gemma3ImageProcessorPil()
    tried = 0
    for width, height in SIZES:
        crops = processor.pan_and_scan(torch.zeros(3, height, width).numpy(), 10, 4, 1.2)
        if crops:
            tried += 1
            across, down = arrangement(len(crops), width / height)
            assert crops[0].shape[1:] == (math.ceil(height / down), math.ceil(width / across))
    assert tried > 10
