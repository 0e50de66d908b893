"""From a finished prefill to its report."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from seeless.core.cache import Span
from seeless.core.family import ModelView
from seeless.core.session import Session
from seeless.core.units import NO_PATCH, Image
from seeless.flops import Dimensions, decoder_layer_flops, kv_bytes, prefill_cost
from seeless.report import Report


def dimensions(view: ModelView) -> Dimensions:
    """Sizes of a model, from its configs and its modules."""
    text, tower = view.language_model.config, view.config.vision_config
    layers = view.tower_layers("image")
    patch = _area(tower.patch_size) * getattr(tower, "temporal_patch_size", 1)
    windowed = 0
    if view.family.windows:
        windowed = len(layers) - len(tower.fullatt_block_indexes)
    return Dimensions(
        hidden=text.hidden_size,
        intermediate=_intermediate(text),
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=text.vocab_size,
        gated=_gated(view.layers[0].mlp),
        tower_layers=len(layers),
        tower_hidden=next(m.in_features for m in layers[0].modules() if isinstance(m, nn.Linear)),
        tower_weights=_weights(layers[0]),
        patch_inputs=getattr(tower, "num_channels", 3) * patch,
        projector_weights=_weights(view.projector),
        windowed_layers=windowed,
        window=(tower.window_size // tower.patch_size) ** 2 if view.family.windows else 0,
    )


def _area(size: int | list[int] | tuple[int, ...]) -> int:
    return size * size if isinstance(size, int) else size[0] * size[1]


def _intermediate(text: Any) -> int:
    """Width of the feed-forward network; of all the experts a token visits."""
    if (expert := getattr(text, "moe_intermediate_size", None)) is not None:
        return expert * text.num_experts_per_tok
    return text.intermediate_size


def _gated(mlp: nn.Module) -> bool:
    return any("gate" in name and "proj" in name for name, _ in mlp.named_parameters()) or hasattr(mlp, "experts")


def _weights(module: nn.Module) -> int:
    """Numbers in all matrices a token is multiplied with."""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    inside = {id(parameter) for part in linear for parameter in part.parameters()}
    loose = [p for p in module.parameters() if p.ndim == 2 and id(p) not in inside]
    return sum(part.in_features * part.out_features for part in linear) + sum(p.numel() for p in loose)


def build_report(session: Session, spans: list[Span], view: ModelView, cached: bool) -> Report:
    """The report of a prefill; `spans` are what its cache holds."""
    size, depth = dimensions(view), view.depth
    rows = len(session.layout.columns)
    original = [session.layout.count(row) for row in range(rows)]
    text = [length - n for length, n in zip(session.row_lengths, original, strict=True)]
    seen = _visual_counts(session, original, depth)
    held = _held_counts(session, depth)
    pictures = [height * width for tap in session.vision.taps for height, width in tap.patches]
    everything = [[patches] * size.tower_layers for patches in pictures]
    left = [seen for tap in session.vision.taps if tap.merged is not None for seen in tap.merged.seen] or everything
    projected = sum(tap.count for tap in session.vision.taps)
    past = [session.past[layer] for layer in range(depth)]
    width = session.embeds.element_size() if cached else 0

    def total(counts: list[list[int]]) -> list[list[int]]:
        return [[n + t for n, t in zip(row, text, strict=True)] for row in counts]

    full, reduced = total([original] * depth), total(seen)
    unreduced = [session.conversation] * depth
    before, after = (
        prefill_cost(size, lengths, cached_before, pictures, inside, projected, view.has_class_token)
        for lengths, cached_before, inside in ((full, unreduced, everything), (reduced, past, left))
    )
    second = [(row, layers * decoder_layer_flops(size, tokens)) for row, tokens, layers in session.second_runs]
    after = replace(after, decoder=after.decoder + sum(flops for _, flops in second))

    def alone(row: int, lengths: list[list[int]], cached_before: list[int], inside: list[list[int]]) -> int:
        own = _pictures_of(session, row)
        tokens = sum(sides[number] for number in own)
        mine = [[each[row]] for each in lengths]
        patches, seen_inside = [pictures[number] for number in own], [inside[number] for number in own]
        return prefill_cost(size, mine, cached_before, patches, seen_inside, tokens, view.has_class_token).total

    sides = [height * width for tap in session.vision.taps for height, width in tap.tokens]
    more = [sum(flops for of, flops in second if of == row) for row in range(rows)]
    return Report(
        stages=session.stages,
        visual=seen,
        text=text,
        flops_before=before,
        flops_after=after,
        row_flops=[
            (alone(row, full, unreduced, everything), alone(row, reduced, past, left) + more[row])
            for row in range(rows)
        ],
        kv_bytes_before=kv_bytes(size, full, unreduced, width),
        kv_bytes_after=kv_bytes(size, total(held), past, width),
        boxes=[[_boxes(placed.image, view.family.overview) for placed in images] for images in session.layout.images],
        centre_crop=view.family.packer is None and view.config.vision_config.model_type == "clip_vision_model",
    )


def _pictures_of(session: Session, row: int) -> list[int]:
    """Which of the pictures that the tower took in are shown in a row."""
    first: dict[int, int] = {}  # of each run of the tower, by the tokens before it
    pictures = tokens = 0
    for tap in session.vision.taps:
        first[tokens] = pictures
        pictures, tokens = pictures + len(tap.patches), tokens + tap.count
    placed = session.layout.images[row]
    return sorted({first[each.base] + number for each in placed for number in each.image.crop.unique().tolist()})


def _visual_counts(session: Session, original: list[int], depth: int) -> list[list[int]]:
    """Per layer, the visual tokens of every row."""
    counts = []
    for layer in range(depth):
        done = [stage for stage in session.stages if stage.layer <= layer]
        counts.append(done[-1].n_after if done else original)
    return counts


def _held_counts(session: Session, depth: int) -> list[list[int]]:
    """Per layer, the visual tokens of every row that its cache holds."""
    counts = {}
    for first, row in session.held.items():
        visual = session.layout.visual.gather(1, row.column)
        counts[first] = (visual if row.valid is None else visual & row.valid).sum(1).tolist()
    return [counts[max(first for first in counts if first <= layer)] for layer in range(depth)]


def _boxes(image: Image, overview: int) -> torch.Tensor:
    """Where each token lies in the picture as the tower saw it, `[visual, 4]` in 0..1.

    The crop at `overview` covers the whole picture, and so does every frame of a video. So do the tiles of LLaVA-NeXT
    together, whose patches come row by row, each row closed by a token without a patch.
    """
    boxes = torch.full((len(image.patch), 4), torch.nan)
    crop, patch = image.crop.cpu(), image.patch.cpu()
    real = patch != NO_PATCH
    whole = crop.unique().tolist() if image.video else [int(crop[real][overview])]
    for number in whole:
        height, width = image.sides[number]
        shown = (crop == number) & real
        row, column = (patch[shown] // width).float(), (patch[shown] % width).float()
        boxes[shown] = torch.stack([column / width, row / height, (column + 1) / width, (row + 1) / height], 1)
    tiles = (~torch.isin(crop, torch.tensor(whole)) & real).nonzero()[:, 0]
    if len(tiles) and not bool(real.all()):
        lines = torch.cumsum((~real).long(), 0)[tiles]
        line = lines - lines[0]
        across = int((line == 0).sum())
        down = int(line[-1]) + 1
        row, column = line.float(), (torch.arange(len(tiles)) % across).float()
        boxes[tiles] = torch.stack([column / across, row / down, (column + 1) / across, (row + 1) / down], 1)
    return boxes
