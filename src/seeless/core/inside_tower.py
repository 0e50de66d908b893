"""What acting inside a vision tower needs: towers that allow it, tokens as blocks of patches, arguments of layers."""

from collections.abc import Callable, Sequence

import torch

from seeless.core.family import ModelView
from seeless.core.images import Side
from seeless.errors import InputError, UnsupportedModel

ENDS = ("cu_seqlens", "cu_seq_lens_q", "cu_seq_lens_k")
LONGEST = ("max_seqlen", "max_length_q", "max_length_k")


def check_inside(view: ModelView, kind: str, layers: range, what: str) -> None:
    """Refuse towers in which patches cannot become fewer before some layers.

    Args:
        layers: those that are to see fewer.
        what: what they would see, "merged tokens".

    Raises:
        UnsupportedModel: the tower is not read, pads, convolves, or changes its patches by itself.
    """
    title = view.family.title
    if not view.family.tower_layers:
        raise view.refuse_unread()
    if view.family.padded:
        raise UnsupportedModel(
            f"the pictures of {title} are filled up to equally many patches in the tower, and padding cannot be told "
            "from patches there; use a strategy that acts at the entry"
        )
    if view.family.feeding is not None:
        raise UnsupportedModel(
            f"the projectors of {title} take the outputs of several tower layers, and whole windows of their patches, "
            f"which {what} do not fill; use a strategy that acts at the entry or later"
        )
    if view.family.merging_layer is not None:
        raise UnsupportedModel(
            f"the tower of {title} makes one patch of four by itself, between its layers, which {what} do not "
            "fit; use a strategy that acts at the entry"
        )
    if not all(view.tower_attends(kind, index) for index in layers):
        raise UnsupportedModel(
            f"some tower layers of {title} convolve over the grid of patches, which {what} do not fill; use a "
            "strategy that acts at the entry"
        )
    if kind in view.family.places:
        raise UnsupportedModel(
            f"pictures of {title} have padding behind them in the tower, and their patches are pooled by their places "
            "after it, so tokens cannot become fewer inside; use a strategy that acts at the entry or later"
        )


def check_frames(view: ModelView, kind: str) -> None:
    """Refuse videos of which frames become one after the tower.

    Raises:
        UnsupportedModel: they do.
    """
    if kind == "video" and view.merged_frames > 1:
        raise UnsupportedModel(
            f"{view.family.title} makes one of several frames of a video behind its tower's layers, which tokens that "
            "become fewer do not fit; use a strategy that acts at the entry"
        )


def members_of(height: int, width: int, block: int, consecutive: bool) -> torch.Tensor:
    """Places `[tokens, patches of one]` of the patches of every token in a grid of patches, tokens in raster order.

    Raises:
        UnsupportedModel: the grid does not fall into blocks.
    """
    if height % block or width % block:
        raise UnsupportedModel(
            f"pictures of {height} x {width} patches do not fall into blocks of {block} x {block}, so tokens share "
            "patches and cannot become fewer in the tower; use a strategy that acts at the entry or later"
        )
    places = torch.arange(height * width)
    if consecutive:
        return places.view(-1, block * block)
    return places.view(height // block, block, width // block, block).transpose(1, 2).reshape(-1, block * block)


def lay_out(view: ModelView, kind: str, grids: Sequence[Side], patches: int) -> list[torch.Tensor]:
    """Places `[tokens, patches of one]` of the patches of every token, picture by picture, numbered through all.

    Args:
        grids: (height, width) of every picture.
        patches: how many the tower saw.

    Raises:
        InputError: the pictures have another number of patches.
        UnsupportedModel: a grid does not fall into blocks.
    """
    if (total := sum(height * width for height, width in grids)) != patches:
        raise InputError(f"the vision tower saw {patches} patches, but its pictures have {total}")
    members, first = [], 0
    for height, width in grids:
        block = view.block(kind, height * width)
        members.append(first + members_of(height, width, block, view.family.merged == "consecutive"))
        first += height * width
    return members


def same_grids(rows: int, patches: int) -> tuple[tuple[int, int], ...]:
    """The grids of pictures of one size, each a row of the tower's batch with so many patches."""
    side = round(patches**0.5)
    return ((side, side) if side * side == patches else (1, patches),) * rows


def check_unpadded(seen: torch.Tensor | None, name: str) -> None:
    """Refuse pictures with padding; `seen`: False on it.

    Raises:
        InputError: there is some.
    """
    if seen is not None and not bool(seen.all()):
        raise InputError(
            f"{name} cannot act on pictures with padding inside the tower (pixel_attention_mask); "
            "resize them to the tower's size"
        )


def fit_arguments(
    given: dict,
    order: torch.Tensor,
    title: str,
    mask: Callable[[torch.Tensor | None], torch.Tensor | None],
) -> dict:
    """A tower layer's arguments but for its hidden states, at the patches that are left.

    Args:
        order: `[rows, patches]`, where in its row of the whole sequence each patch now stands, class tokens included;
            alike in all rows where there are rotary embeddings.
        title: of the family.
        mask: makes the mask fit.

    Raises:
        UnsupportedModel: the layer takes something else per patch.
    """
    result = dict(given)
    for name, value in given.items():
        if name == "attention_mask":
            result[name] = mask(value)
        elif name == "position_embeddings":
            result[name] = None if value is None else tuple(x[..., order[0].to(x.device), :] for x in value)
        elif name == "position_ids" and value is not None:  # `[patches, 2]`, Pixtral's layers before transformers 5.20
            result[name] = value[order[0].to(value.device)]
        elif name in ENDS:
            if value is None:
                continue
            places = order[0].sort().values.to(value.device)
            ends = torch.searchsorted(places, value.to(places.dtype)).unique_consecutive()
            result[name] = ends.to(value.dtype)
        elif isinstance(value, torch.Tensor) and value.ndim:
            raise UnsupportedModel(
                f"the tower layers of {title} take {name}, which seeless cannot fit to fewer tokens; use a strategy "
                "that acts at the entry or later"
            )
    for name in LONGEST:
        if given.get(name) is not None:
            ends = next(result[end] for end in ENDS if end in result)
            result[name] = int(ends.diff().max())
    return result


def fit_mask(mask: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """A mask `[rows, 1, patches, patches]` or `[rows, patches]` at the patches that are left."""
    if mask.ndim == 4:
        return mask.take_along_dim(order[:, None, :, None], 2).take_along_dim(order[:, None, None, :], 3)
    return mask.take_along_dim(order, 1)
