"""What the stock models must show before anything is dropped from them."""

import functools

import pytest
import torch
import transformers

from seeless.families import families

from . import IMAGE, NEWER, RAGGED, RAGGED_VIDEO, TINIES, VIDEO, make_inputs, make_pieces

NEW_TOKENS = 4


@functools.cache
def build(tiny, backend):
    return tiny.build(backend)


def batch(kind):
    return RAGGED if kind == "image" else RAGGED_VIDEO


CASES = [pytest.param(tiny, kind, id=f"{tiny}-{kind}") for tiny in TINIES for kind in tiny.kinds]
every = pytest.mark.parametrize(("tiny", "kind"), CASES)
BACKENDS = ("eager", "sdpa")


def test_every_family_is_here():
    if not NEWER:
        pytest.skip(f"transformers {transformers.__version__} has no LFM3-VL, and a wrong MiniCPM-V 4.6")
    assert {tiny.config().model_type for tiny in TINIES} == set(families())


def text_places(inputs):
    ids = inputs["input_ids"]
    return (ids != IMAGE) & (ids != VIDEO) & inputs["attention_mask"].bool()


@every
@pytest.mark.parametrize("padding", ["left", "right"])
@torch.no_grad()
def test_eager_and_sdpa_agree(tiny, kind, padding):
    if tiny.backends == ("eager",):
        with pytest.raises(ValueError, match="does not support an attention implementation"):
            tiny.build("eager").set_attn_implementation("sdpa")
        return
    inputs = make_inputs(build(tiny, "eager"), tiny, batch(kind), padding)
    eager, sdpa = (build(tiny, backend)(**inputs).logits for backend in BACKENDS)
    assert (eager - sdpa)[text_places(inputs)].abs().max() < 1e-4
    assert eager[text_places(inputs)].std() > 0.3


@every
@torch.no_grad()
def test_a_row_alone_equals_the_row_of_a_batch(tiny, kind):
    for backend in tiny.backends:
        model, rows = build(tiny, backend), batch(kind)
        together = model(**make_inputs(model, tiny, rows)).logits
        for i, row in enumerate(rows):
            inputs = make_inputs(model, tiny, [row])
            alone = model(**inputs).logits
            length = alone.shape[1]
            assert (alone[0] - together[i, -length:])[text_places(inputs)[0]].abs().max() < 1e-4


@every
@torch.no_grad()
def test_generation_equals_the_forward_pass_over_the_whole(tiny, kind):
    for backend in tiny.backends:
        model = build(tiny, backend)
        inputs = make_inputs(model, tiny, batch(kind))
        out = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        whole = {**tiny.extend(inputs, NEW_TOKENS), "input_ids": out.sequences}
        want = model(**whole).logits[:, -NEW_TOKENS - 1 : -1]
        assert (torch.stack(out.logits, 1) - want).abs().max() < 1e-4
        assert not (out.sequences[:, -NEW_TOKENS:] >= 96).any()


@every
@torch.no_grad()
def test_the_answer_depends_on_the_pixels(tiny, kind):
    model, rows = build(tiny, "eager"), batch(kind)
    inputs = make_inputs(model, tiny, rows)
    key = "pixel_values" if kind == "image" else "pixel_values_videos"
    pixels = inputs[key]
    changed = {**inputs, key: pixels.flip(0 if pixels.ndim == 2 else -1)}
    change = (model(**changed).logits - model(**inputs).logits)[:, -1].abs().amax(-1)
    for row, difference in zip(rows, change, strict=True):
        if any(str(part).startswith(kind) for part in row):
            assert difference > 1e-2
        else:
            assert difference == 0


def features(model, tiny, kind, piece, pixels=None):
    """What the model makes of one piece: one row per visual token."""
    ids = torch.tensor([piece.ids])
    inputs = tiny.collate({**{k: [] for k in tiny.kinds}, kind: [piece]}, ids, torch.ones_like(ids))
    names = ("pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask", "image_merge_sizes")
    more = ("high_res_pixel_values", "image_position_ids", "spatial_shapes", "target_sizes")
    more += ("image_token_pooling", "image_grids")
    encode, own = model.model.get_image_features, (*names, *more)
    if kind == "video":
        encode = getattr(model.model, "get_video_features", None)
        own = ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")
        own += ("video_position_ids", "num_frames_per_video")
    inputs = {key: value for key, value in inputs.items() if key in own}
    if pixels is not None:
        inputs[own[0]] = pixels.reshape(inputs[own[0]].shape)
    if encode is None:  # videos are encoded as images are
        encode, inputs = model.model.get_image_features, {"pixel_values": inputs[own[0]]}
    out = encode(**inputs, return_dict=True)
    if (found := out.pooler_output) is None:  # what enters before the decoder's first layer
        found = dict(out.deepstack_features)[0]
    return torch.cat([f.reshape(-1, f.shape[-1]) for f in found])


@every
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_placeholders_are_as_many_as_features(tiny, kind, seed):
    model = build(tiny, "eager")
    (piece,) = make_pieces(model, tiny, [f"{kind}:{seed}"])
    assert len(features(model, tiny, kind, piece)) == piece.tokens
    assert all(len(places) == height * width for places, height, width in piece.crops)
    places = [place for crop in piece.crops for place in crop[0]]
    assert len(set(places)) == len(places) and max(places) < piece.tokens and min(places) >= 0


@functools.cache
def local(tiny):
    """A model whose tower and Q-Formers mix no patches of several tokens, so that a token's gradient shows where in
    which picture it comes from."""
    model = tiny.build("eager")
    ends = (".out_proj", ".attn.proj", ".projection_layer", ".attention.o_proj", ".o_proj.linear", ".self_attn.o_proj")
    for name, module in model.named_modules():
        inside = not any(part in name for part in ("language_model", "text_model", "projector"))
        if (name.endswith(ends) and inside) or (".qformer." in name and name.endswith("attention.output.dense")):
            for p in module.parameters():
                p.data.zero_()
    return model


def origin(tiny, piece, gradient):
    """(picture, height, width) energy of a gradient on the pixels of one piece."""
    grid = next((piece.data[key][0].tolist() for key in piece.data if key.endswith("grid_thw")), None)
    energy = gradient.square()
    if grid is not None and grid[0] > len(piece.crops):  # several frames of which the model makes one
        grid[0] = len(piece.crops)
        energy = energy.unflatten(0, (grid[0], -1, grid[1] * grid[2])).sum(1).flatten(0, 1)
    if "spatial_shapes" in piece.data:  # patches in raster order
        sides = piece.data["spatial_shapes"].tolist()
        return [own[: h * w].view(h, w) for own, (h, w) in zip(energy.sum(-1), sides, strict=True)]
    if "image_grids" in piece.data:  # patches of the whole picture, then of a canvas of its crops
        low, wide, high, across = (2 * side for side in piece.data["image_grids"][0].tolist())
        patches = energy.sum(-1).flatten()
        whole, rest = patches[: low * wide], patches[low * wide :][: high * across]
        return [whole.view(low, wide), *([rest.view(high, across)] if high else [])]
    if "target_sizes" in piece.data:  # patches side by side, picture after picture
        sides = piece.data["target_sizes"].tolist()
        patches = energy.sum((0, 1, 2)).view(-1, gradient.shape[2]).sum(1).split([h * w for h, w in sides])
        return [own.view(side) for own, side in zip(patches, sides, strict=True)]
    places = next((piece.data[key] for key in piece.data if key.endswith("position_ids")), None)
    if places is not None:  # Gemma 4 takes patches with their columns and rows
        width, height = (places[0].amax(0) + 1).tolist()
        return energy.sum(-1)[:, : height * width].unflatten(1, (height, width))
    if grid is None:
        return energy.flatten(0, -4).sum(1)
    t, h, w = grid
    if energy.ndim == 4 or any(name.endswith("merge_sizes") for name in piece.data):  # in the order of the picture
        return energy.flatten(1).sum(1).reshape(t, h, w)
    # Qwen's order of patches: 2 x 2 of them side by side
    energy = energy.sum(1).reshape(t, h // 2, w // 2, 2, 2)
    return energy.permute(0, 1, 3, 2, 4).reshape(t, h, w)


@every
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.full) for seed in (2, 3))])
def test_crops_say_where_every_token_comes_from(tiny, kind, seed):
    model = local(tiny)
    (piece,) = make_pieces(model, tiny, [f"{kind}:{seed}"])
    key = "pixel_values" if kind == "image" else "pixel_values_videos"
    pixels = piece.data[key].clone().requires_grad_()
    out = features(model, tiny, kind, piece, pixels)
    direction = torch.randn(out.shape[1], generator=torch.Generator().manual_seed(5))
    crops = piece.crops
    for number, (places, height, width) in enumerate(crops):
        y, x = torch.zeros(height, width), torch.zeros(height, width)
        for i, place in enumerate(places):
            (gradient,) = torch.autograd.grad(out[place] @ direction, pixels, retain_graph=True)
            energy = origin(tiny, piece, gradient)
            assert torch.stack([own.sum() for own in energy]).argmax() == number
            energy = energy[number] / energy[number].sum()
            y[i // width, i % width] = (energy.sum(1) * torch.arange(len(energy))).sum()
            x[i // width, i % width] = (energy.sum(0) * torch.arange(energy.shape[1])).sum()
        assert (y.diff(dim=0) > 0).all() and (x.diff(dim=1) > 0).all()
        assert (y.amax(1)[:-1] < y.amin(1)[1:]).all() and (x.amax(0)[:-1] < x.amin(0)[1:]).all()
    outside = set(range(piece.tokens)) - {place for places, _, _ in crops for place in places}
    for place in list(outside)[:5]:  # newline and class tokens come from no patch
        (gradient,) = torch.autograd.grad(out[place] @ direction, pixels, retain_graph=True, allow_unused=True)
        assert gradient is None or not gradient.any()
