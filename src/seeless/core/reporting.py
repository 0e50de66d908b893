"""From a finished prefill to its report."""

import torch
from torch import nn

from seeless.core.cache import Span
from seeless.core.family import ModelView
from seeless.core.session import Session
from seeless.core.units import NO_PATCH, Image
from seeless.flops import Dimensions, kv_bytes, prefill_cost
from seeless.report import Report


def dimensions(view: ModelView) -> Dimensions:
    """Sizes of a model, from its configs and its projector."""
    text, tower = view.language_model.config, view.config.vision_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Dimensions(
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=head_dim,
        vocabulary=text.vocab_size,
        gated=hasattr(view.layers[0].mlp, "gate_proj"),
        tower_layers=len(view.tower_layers),
        tower_hidden=tower.hidden_size,
        tower_intermediate=tower.intermediate_size,
        patch_inputs=tower.num_channels * tower.patch_size**2,
        projector_weights=sum(
            linear.in_features * linear.out_features
            for linear in view.projector.modules()
            if isinstance(linear, nn.Linear)
        ),
    )


def build_report(session: Session, spans: list[Span], view: ModelView, cached: bool) -> Report:
    """The report of a prefill; `spans` are what its cache holds."""
    size, depth = dimensions(view), view.depth
    rows = len(session.layout.columns)
    original = [session.layout.count(row) for row in range(rows)]
    text = [length - n for length, n in zip(session.row_lengths, original, strict=True)]
    seen = _visual_counts(session, original, depth)
    held = [seen[min(last, depth - 1)] for last in _held_as(session, depth)]
    crops = 0 if session.vision.features is None else len(session.vision.features)
    patches = 0 if session.vision.features is None else session.vision.features.shape[1]
    past = [session.past[layer] for layer in range(depth)]
    width = session.embeds.element_size() if cached else 0

    def total(counts: list[list[int]]) -> list[list[int]]:
        return [[n + t for n, t in zip(row, text, strict=True)] for row in counts]

    full = [original] * depth
    unreduced = [session.conversation] * depth
    before, after = (
        prefill_cost(size, total(counts), cached_before, crops, patches, view.has_class_token)
        for counts, cached_before in ((full, unreduced), (seen, past))
    )
    return Report(
        stages=session.stages,
        visual=seen,
        text=text,
        flops_before=before,
        flops_after=after,
        kv_bytes_before=kv_bytes(size, total(full), unreduced, width),
        kv_bytes_after=kv_bytes(size, total(held), past, width),
        boxes=[[_boxes(image, session.layout.side) for image in images] for images in session.layout.images],
        centre_crop=view.family.packer is None and view.has_class_token,
    )


def _visual_counts(session: Session, original: list[int], depth: int) -> list[list[int]]:
    """Per layer, the visual tokens of every row."""
    counts = []
    for layer in range(depth):
        done = [stage for stage in session.stages if stage.layer <= layer]
        counts.append(done[-1].n_after if done else original)
    return counts


def _held_as(session: Session, depth: int) -> list[int]:
    """For every layer, a layer that saw the tokens its cache holds."""
    same = {id(row): first for first, row in session.seen.items()}
    return [same[id(session.at(session.held, layer))] for layer in range(depth)]


def _boxes(image: Image, side: tuple[int, int]) -> torch.Tensor:
    """Where each token lies in the picture as the tower saw it, `[visual, 4]` in 0..1.

    A base crop covers the whole picture; so do the tiles of LLaVA-NeXT, whose patches come row by row, each row
    closed by a token without a patch.
    """
    height, width = side
    boxes = torch.full((len(image.patch), 4), torch.nan)
    crop, patch = image.crop.cpu(), image.patch.cpu()
    base = crop == crop[0]
    shown = base & (patch != NO_PATCH)
    row, column = (patch[shown] // width).float(), (patch[shown] % width).float()
    boxes[shown] = torch.stack([column / width, row / height, (column + 1) / width, (row + 1) / height], 1)
    tiles = (~base & (patch != NO_PATCH)).nonzero()[:, 0]
    if len(tiles):
        lines = torch.cumsum((patch == NO_PATCH).long(), 0)[tiles]
        line = lines - lines[0]
        across = int((line == 0).sum())
        down = int(line[-1]) + 1
        row, column = line.float(), (torch.arange(len(tiles)) % across).float()
        boxes[tiles] = torch.stack([column / across, row / down, (column + 1) / across, (row + 1) / down], 1)
    return boxes
