"""How visual tokens group into rows, images and crops: units of LLaVA-NeXT against a layout worked out by hand."""

import numpy as np
import pytest
import torch
from by_hand import read_rows

import seeless as sl
from seeless.core.images import NO_PATCH, packed_image
from seeless.core.images import Image as Tokens
from seeless.core.pictures import read_note
from seeless.core.units import Layout, Placeholders
from tiny_models import IMAGE, RAGGED, VARIANTS, crop_grids, make_inputs, picture, row_grids, visual_tokens

every = pytest.mark.parametrize("variant", VARIANTS, ids=str)
nexts = pytest.mark.parametrize("variant", VARIANTS[4:], ids=str)
NEXT = VARIANTS[4]
ROWS = [*RAGGED, [4, "image:0", "image:2", 1]]


@torch.no_grad()
def embeddings(model, inputs):
    """What enters the untouched language model."""
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"].clone()), with_kwargs=True
    )
    model(**inputs)
    hook.remove()
    return seen[0]


def spy_units(model, inputs, **knobs):
    """`(grid, index, visual)` of every unit a strategy of this scope is shown at the entry."""
    seen = []

    class Spy(sl.EntryStrategy):
        def score(self, ctx):
            assert ctx.visual.shape[:2] == ctx.index.shape and ctx.n_original == ctx.index.shape[1]
            seen.extend((ctx.grid, index.tolist(), visual) for index, visual in zip(ctx.index, ctx.visual, strict=True))
            return ctx.visual.norm(dim=-1)

    with torch.no_grad(), sl.apply(model, Spy(keep=1, **knobs)):
        model(**inputs)
    return seen


def match(seen, wanted, embeds):
    """Every wanted `(row, columns, grid)` was shown exactly once, in order within the unit."""
    left = list(seen)
    for row, columns, grid in wanted:
        fits = [
            unit
            for unit in left
            if len(unit[1]) == len(columns) and torch.allclose(unit[2], embeds[row, columns], atol=1e-4)
        ]
        assert len(fits) == 1 and fits[0][0] == grid and fits[0][1] == list(range(len(columns)))
        left = [unit for unit in left if unit is not fits[0]]
    assert left == []


@every
def test_crops(tiny, variant):
    model = tiny(variant, "untouched")
    inputs = make_inputs(model, variant, ROWS)
    grids = row_grids(model, variant, ROWS, inputs["input_ids"])
    embeds = embeddings(model, inputs)
    # images occur in several rows: take row by row, so that equal pictures cannot stand in for each other
    for row in range(len(ROWS)):
        alone = make_inputs(model, variant, [ROWS[row]])
        shift = inputs["input_ids"].shape[1] - alone["input_ids"].shape[1]
        wanted = [(row, columns, (1, h, w)) for columns, h, w in grids[row]]
        assert all(column >= shift for _, columns, _ in wanted for column in columns)
        match(spy_units(tiny(variant, "sdpa"), alone, scope="crop"), wanted, embeds)
    seen = spy_units(tiny(variant, "sdpa"), inputs, scope="crop")
    assert len(seen) == sum(map(len, grids))


@every
@pytest.mark.parametrize("scope", ["row", "image"])
def test_rows_and_images(tiny, variant, scope):
    model = tiny(variant, "untouched")
    for row in ROWS:
        inputs = make_inputs(model, variant, [row])
        columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0].tolist()
        counts = [visual_tokens(model, variant, *picture(variant, int(p[6:]))) for p in row if isinstance(p, str)]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        images = [columns[start : start + n] for start, n in zip(starts, counts, strict=True)]
        whole = scope == "image" or len(images) == 1
        grid = (1, 4, 4) if variant.family == "llava" and whole else None  # newlines make no grid
        wanted = [(0, own, grid) for own in (images if scope == "image" else [columns] if columns else [])]
        match(spy_units(tiny(variant, "sdpa"), inputs, scope=scope), wanted, embeddings(model, inputs))


@nexts
@pytest.mark.parametrize("number", range(4))
def test_the_models_packing_is_the_one_worked_out_by_hand(tiny, variant, number):
    """Crop by crop, newline by newline; `by_hand.origins` and `crop_grids` are two derivations of one layout."""
    model = tiny(variant, "untouched")
    pixels, size = picture(variant, number)
    inputs = make_inputs(model, variant, [[1, f"image:{number}", 1]])
    (row,) = read_rows(model, variant, [[1, f"image:{number}", 1]], inputs)
    origin = row.pictures[0].origins
    grids = crop_grids(variant, size, 0)
    assert len(origin) == visual_tokens(model, variant, pixels, size)
    for crop, (columns, height, width) in enumerate(grids):
        own = [origin[column] for column in columns]
        assert len(own) == height * width and {c for c, _ in own} == {crop}
        patches = [patch for _, patch in own]
        assert patches == sorted(patches) and len({p % 4 for p in patches}) == width
    newlines = set(range(len(origin))) - {column for columns, _, _ in grids for column in columns}
    assert newlines == {i for i, o in enumerate(origin) if o is None}


@torch.no_grad()
def test_another_packing_said_by_the_config_is_followed():
    """A square picture on a canvas of two tiles, side by side and one above the other: as many tokens, elsewhere."""
    variant = VARIANTS[4]
    model = variant.build("sdpa")
    pixels = torch.randn(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[5, 6, *[IMAGE] * 36, 7, 8]])
    given = {"input_ids": ids, "pixel_values": pixels, "image_sizes": torch.tensor([[40, 40]])}

    def kept(run):
        model(**given)
        return run.report.stages[0].kept[0].tolist()

    found = []
    for canvas in ([[32, 64]], [[64, 32]]):
        model.config.image_grid_pinpoints = canvas
        with sl.apply(model, "fastervlm", keep=3) as run:
            found.append(kept(run))
    assert found[0] != found[1]
    with sl.apply(model, "fastervlm", keep=3) as run:
        for canvas, want in zip(([[32, 64]], [[64, 32]]), found, strict=True):
            model.config.image_grid_pinpoints = canvas
            assert kept(run) == want


@nexts
@pytest.mark.parametrize("name", ["fastervlm", "vispruner", "random"])
@pytest.mark.parametrize("newlines", [False, True])
def test_newlines(tiny, variant, name, newlines):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, ROWS)
    rows = read_rows(tiny(variant, "untouched"), variant, ROWS, inputs)
    with torch.no_grad(), sl.apply(model, name, keep=3, scope="crop", newlines=newlines) as run:
        model(**inputs)
    stage = run.report.stages[0]
    for index, row in enumerate(rows):
        all_origins = [origin for picture in row.pictures for origin in picture.origins]
        here = {place for place, origin in enumerate(all_origins) if origin is None}
        kept = set(stage.kept[index].tolist())
        assert kept & here == (here if newlines else set())
        crops = sum(len({o[0] for o in picture.origins if o is not None}) for picture in row.pictures)
        assert len(kept - here) == 3 * crops


@nexts
def test_pool_keeps_newlines_on_request(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, ROWS)
    counts = []
    for newlines in (False, True):
        with torch.no_grad(), sl.apply(model, "pool", keep=2, newlines=newlines) as run:
            model(**inputs)
        counts.append(run.report.n_after)
    rows = read_rows(tiny(variant, "untouched"), variant, ROWS, inputs)
    newlines = [sum(o is None for p in row.pictures for o in p.origins) for row in rows]
    assert [b - a for a, b in zip(*counts, strict=True)] == newlines


class Newlines(sl.EntryStrategy):
    """Keeps what shows no patch."""

    def score(self, ctx):
        return (ctx.patch == NO_PATCH).float()


@nexts
@torch.no_grad()
def test_newlines_stay_where_they_are_all_that_is_left_of_a_picture(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [[3, "image:1", 4], [5, "image:0", 2, "image:2", 3], [6]])
    strategies = [Newlines(keep=2, scope="image"), sl.FastV(keep=1, layer=2, scope="crop")]
    with sl.apply(model, strategies) as run:
        model(**inputs)
    assert run.report.stages[1].n_before == run.report.n_after == [2, 4, 0]


@nexts
@pytest.mark.parametrize("scope", ["row", "image"])
def test_newlines_are_ranked_like_any_token_elsewhere(tiny, variant, scope):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, ROWS)
    with torch.no_grad(), sl.apply(model, "fastv", keep=0.5, scope=scope) as run:
        model(**inputs)
    assert not any(scores.isnan().any() for scores in run.report.stages[0].scores)


@every
@pytest.mark.parametrize("name", ["fastervlm", "vispruner", "pool", "random"])
@torch.no_grad()
def test_identity_per_crop(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, ROWS)
    before = model(**inputs).logits
    with sl.apply(model, name, keep=1.0, scope="crop") as run:
        assert torch.equal(model(**inputs).logits, before)
    assert run.report.n_after == run.report.n_before


# `Layout` on its own.


@pytest.mark.parametrize(("choice", "lead"), [("default", []), ("full", [NO_PATCH])])
@torch.no_grad()
def test_plain_images(choice, lead):
    """Pictures that come out one by one, with or without their class token."""
    model = VARIANTS[1].build()
    model.config.vision_feature_select_strategy = choice
    pixels = torch.stack([picture(VARIANTS[1], number)[0] for number in range(2)])
    with sl.apply(model, "fastv", keep=0.5):
        note, repeats = read_note(model.get_image_features(pixel_values=pixels))
    images = note.images({})
    assert (repeats, note.features, len(images)) == (1, 2, 2)
    for number, image in enumerate(images):
        assert image.patch.tolist() == [*lead, *range(16)]
        assert image.crop.tolist() == [number] * len(image.patch)
        assert image.sides == ((4, 4), (4, 4)) and not image.video
        assert image.source.tolist() == [*lead, *range(16 * number, 16 * number + 16)]


def test_packing_without_newlines_is_refused():
    with pytest.raises(sl.InputError, match="without newline tokens"):
        packed_image(lambda features, image_newline: (features,), 1, 4, {"image_newline": None}, {})


SQUARES = ((2, 2),) * 4


def tokens_of(crop, patch, **options):
    return Tokens(np.array(crop), np.array([*patch]), **{"sides": SQUARES, **options})


def layout(rows, images, **options):
    return Layout([Placeholders(np.array(rows, dtype=bool), images, **options)])


def shown_units(shown, scope):
    return [(unit.row, unit.tokens.tolist(), unit.grid) for unit in shown.units(scope)]


def test_layout_errors():
    images = [tokens_of([number] * 4, [0, 1, 2, 3]) for number in range(2)]
    with pytest.raises(sl.InputError, match="7 visual placeholders, but 8 visual features of 2 images"):
        layout([[1, 1, 1, 1, 1, 1, 1, 0]], images)
    with pytest.raises(sl.InputError, match="placeholders of row 0 end in the middle of an image"):
        layout([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], images)


def test_only_complete_rectangles_in_raster_order_are_grids():
    for patch, grid in [
        ([0, 1, 2, 3], (1, 2, 2)),
        ([0, 1], (1, 1, 2)),
        ([1, 3], (1, 2, 1)),
        ([0, 3], None),
        ([1, 0, 3, 2], None),
        ([0, 1, 2, NO_PATCH], None),
    ]:
        image = tokens_of([0] * len(patch), patch)
        (unit,) = layout([[1] * len(patch)], [image]).units("image")
        assert unit.grid == grid and unit.tokens.tolist() == list(range(len(patch)))


def test_units_of_every_scope():
    newline = tokens_of([0, 0, 0, 0, 1, 1, 0], [0, 1, 2, 3, 0, 1, NO_PATCH])
    other = tokens_of([2, 2, 2, 2], [0, 1, 2, 3])
    shown = layout([[0, *[1] * 7, 0, *[1] * 4], [0] * 13], [newline, other])
    assert [(u.row, u.tokens.tolist(), u.grid) for u in shown.units("row")] == [(0, list(range(11)), None)]
    assert [(u.tokens.tolist(), u.grid) for u in shown.units("image")] == [
        (list(range(7)), None),
        ([7, 8, 9, 10], (1, 2, 2)),
    ]
    assert [(u.tokens.tolist(), u.grid) for u in shown.units("crop")] == [
        ([0, 1, 2, 3], (1, 2, 2)),
        ([4, 5], (1, 1, 2)),
        ([7, 8, 9, 10], (1, 2, 2)),
    ]
    assert shown_units(shown, "frame") == shown_units(shown, "image")  # no frames
    assert shown.source(0).tolist() == [0, 1, 2, 3, 4, 5, NO_PATCH, 8, 9, 10, 11] and shown.source(1).tolist() == []
    assert shown.patch(0).tolist() == [0, 1, 2, 3, 0, 1, NO_PATCH, 0, 1, 2, 3]


def test_sides_decide_where_a_pictures_tokens_stand():
    """Pictures of any size: `source` counts the tokens of those before, `grid` takes the own width."""
    image = tokens_of([1] * 6, range(6), sides=((2, 2), (3, 2), (1, 6)))
    assert image.source.tolist() == [4, 5, 6, 7, 8, 9] and image.grid(np.arange(6)) == (1, 3, 2)
    assert tokens_of([2] * 6, range(6), sides=((2, 2), (3, 2), (1, 6))).grid(np.arange(6)) == (1, 1, 6)


def test_units_of_a_video():
    """Frames make one grid, and are the units of two scopes; a video with a class token per frame has no grid."""
    film = tokens_of([0] * 4 + [1] * 4, [0, 1, 2, 3] * 2, video=True)
    shown = layout([[1] * 8], [film])
    assert shown_units(shown, "row") == shown_units(shown, "image")
    assert shown_units(shown, "image") == [(0, list(range(8)), (2, 2, 2))]
    frames = [(0, [0, 1, 2, 3], (1, 2, 2)), (0, [4, 5, 6, 7], (1, 2, 2))]
    assert shown_units(shown, "crop") == shown_units(shown, "frame") == frames
    tiles = layout([[1] * 8], [tokens_of([0] * 4 + [1] * 4, [0, 1, 2, 3] * 2)])
    assert shown_units(tiles, "image") == shown_units(tiles, "frame") == [(0, list(range(8)), None)]
    assert shown_units(tiles, "crop") == frames
    with_class = layout([[1] * 10], [tokens_of([0] * 5 + [1] * 5, [NO_PATCH, 0, 1, 2, 3] * 2, video=True)])
    assert shown.frame(0).tolist() == [0] * 4 + [1] * 4 and tiles.frame(0).tolist() == [-1] * 8
    assert with_class.frame(0).tolist() == [0] * 5 + [1] * 5
    assert with_class.patch(0).tolist() == [NO_PATCH, 0, 1, 2, 3] * 2
    closed = layout([[1] * 9], [tokens_of([0] * 4 + [1] * 4 + [0], [*[0, 1, 2, 3] * 2, NO_PATCH], video=True)])
    assert closed.frame(0).tolist() == [0] * 4 + [1] * 4 + [0]
    assert shown_units(with_class, "image") == [(0, list(range(10)), None)]
    assert [tokens for _, tokens, _ in shown_units(with_class, "frame")] == [[1, 2, 3, 4], [6, 7, 8, 9]]


def test_images_and_videos_in_one_row():
    """In the order of their columns; the tables of the second tower run follow those of the first."""
    film = tokens_of([0] * 4 + [1] * 4, [0, 1, 2, 3] * 2, video=True, sides=SQUARES[:2])
    still = tokens_of([0] * 4, [0, 1, 2, 3], sides=SQUARES[:1])
    images = np.array([[0] * 9 + [1] * 4], dtype=bool)
    videos = np.array([[1] * 8 + [0] * 5], dtype=bool)
    shown = Layout([Placeholders(images, [still]), Placeholders(videos, [film], base=4)])
    assert shown.columns[0].tolist() == [*range(8), *range(9, 13)]
    assert shown.source(0).tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3]
    assert shown.frame(0).tolist() == [0] * 4 + [1] * 4 + [-1] * 4
    assert shown_units(shown, "image") == [(0, list(range(8)), (2, 2, 2)), (0, [8, 9, 10, 11], (1, 2, 2))]


def test_the_frames_of_every_video_count_from_0():
    films = [tokens_of([n] * 2 + [n + 1] * 2, [0, 1] * 2, video=True, sides=((1, 2),) * 4) for n in (0, 2)]
    assert layout([[*[1] * 4, 0, *[1] * 4]], films).frame(0).tolist() == [0, 0, 1, 1] * 2


def test_runs_join_crops_to_images():
    """Three crops, the first two in one run of placeholders."""
    crops = [tokens_of([number] * 4, [0, 1, 2, 3]) for number in range(3)]
    row = [[1] * 8 + [0] + [1] * 4]
    apart, joined = layout(row, crops), layout(row, crops, runs=True)
    assert [tokens for _, tokens, _ in shown_units(apart, "image")] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [tokens for _, tokens, _ in shown_units(joined, "image")] == [list(range(8)), [8, 9, 10, 11]]
    assert shown_units(joined, "crop") == shown_units(apart, "crop") == shown_units(apart, "image")
    assert joined.source(0).tolist() == apart.source(0).tolist() == list(range(12))
