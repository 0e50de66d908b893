"""Images cut into tiles: the base crop, then all tiles as one unpadded grid with a newline token after every row."""

import math


def best_tiles(size, pinpoints, crop: int) -> tuple[int, int]:
    """Tiles (down, across) of the resolution that keeps most of the image and wastes least."""
    best, most, least = None, 0, math.inf
    for height, width in pinpoints:
        scale = min(width / size[1], height / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        waste = height * width - kept
        if kept > most or (kept == most and waste < least):
            best, most, least = (height // crop, width // crop), kept, waste
    return best


def layout(size, tiles: tuple[int, int], side: int, limit: int | None = None):
    """(tokens, crops) of an image of `size` (height, width), worked out by hand.

    `limit`: LLaVA-OneVision's `anyres_max_N`; a token of a resampled grid counts for the tile that its centre lies in.
    """
    height, width = tiles[0] * side, tiles[1] * side
    if size[1] / size[0] > width / height:
        cut = (height - int(round(size[0] * width / size[1], 7))) // 2
        rows, columns = range(cut, height - cut), range(width)
    else:
        cut = (width - int(round(size[1] * height / size[0], 7))) // 2
        rows, columns = range(height), range(cut, width - cut)
    down, across = len(rows), len(columns)
    if limit is not None and (ratio := math.sqrt(down * across / (limit * side * side))) > 1.1:
        down, across = int(down // ratio), int(across // ratio)
    crops, place = {}, side * side
    for r in range(down):
        for c in range(across):
            y = rows[0] + (r + 0.5) * len(rows) / down
            x = columns[0] + (c + 0.5) * len(columns) / across
            crops.setdefault((int(y // side), int(x // side)), []).append((r, c, place))
            place += 1
        place += 1  # the newline
    found = [(list(range(side * side)), side, side)]
    for tile in sorted(crops):
        cells = sorted(crops[tile])
        found.append(([p for _, _, p in cells], len({r for r, _, _ in cells}), len({c for _, c, _ in cells})))
    return place, found
