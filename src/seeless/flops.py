"""Analytic cost of one prefill, from the sizes of a model alone."""

from collections import defaultdict
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model that decide what a forward costs.

    Args:
        hidden, heads, kv_heads, vocabulary: of the decoder.
        head_dim: of its heads; the mean of keys and values, where these differ.
        attention: per decoder layer, the weights of the matrices of its attention, or of what it has in place of that.
        feed_forward: per decoder layer, those of all else that a token meets: of its feed-forward network, of the
            router and the experts that it visits.
        tower_layers, tower_hidden: of the vision tower.
        tower_weights: weights of the matrices of one of its layers, on average.
        patch_inputs: numbers in one patch, 3 * patch_size**2.
        projector_weights: weights of the matrices between tower and decoder, those for features of earlier tower layers
            (DeepStack) included.
        patch_weights: of others between them that every patch meets, and not every token: of keys and values of
            projectors whose queries look at patches.
        windowed_layers, window: tower layers whose attention stays in square windows of so many patches a side; 0 = has
            none.
        unlike: `kv_heads` and `head_dim` of every decoder layer, where these differ; else empty.
        recurrent: decoder layers without attention.
        visual: `feed_forward` of visual tokens, where these have experts of their own; else empty.
    """

    hidden: int
    attention: tuple[int, ...]
    feed_forward: tuple[int, ...]
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tower_layers: int
    tower_hidden: int
    tower_weights: int
    patch_inputs: int
    projector_weights: int
    patch_weights: int = 0
    windowed_layers: int = 0
    window: int = 0
    unlike: tuple[tuple[int, int], ...] = ()
    recurrent: tuple[int, ...] = ()
    visual: tuple[int, ...] = ()

    def of_layer(self, layer: int) -> tuple[int, int]:
        """`kv_heads` and `head_dim` of a decoder layer with attention."""
        return self.unlike[layer] if self.unlike else (self.kv_heads, self.head_dim)


@dataclass(frozen=True)
class Picture:
    """A picture that the tower takes in: an image, a tile, a frame.

    Args:
        side: (height, width) in patches.
        tokens: that come out of the projector for it.
        inside: patches that each layer of the tower sees, class token left out; 0: it does not run.
        run: pictures of one run lie in one sequence, whose attention map is computed whole and masked.
        frames: equal parts, each with an attention map of its own.
    """

    side: tuple[int, int]
    tokens: int
    inside: list[int]
    run: int
    frames: int = 1


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of one prefill, a multiply and an add counted as two.

    With n tokens, d hidden, m intermediate, h heads and g key heads of size e, a decoder layer costs
    `2 (2 n d h e + 2 n d g e + 2 n s h e + 3 n d m)`, s = n plus the tokens cached before. With h e = g e = d this is
    twice the `4 n d^2 + 2 n^2 d + 3 n d m` of PyramidDrop (arXiv 2410.17247, section 3.3), which counts
    multiply-accumulates; the attention map is counted in full, as there, whatever of it causality or a window hides. A
    tower layer costs
    `2 (p w + 2 p^2 d)` for p patches (and class token), w weights, w = 4 d^2 + 2 d m in a plain encoder (Chen et al.,
    arXiv 2403.06764, section 4.2), the projector two operations per weight and token, the lm_head `2 d vocabulary` for
    one position per row, as in `generate`. In general a decoder layer costs two operations for every weight that a
    token meets, and `4 n s h e` for the attention map: gates, compressed keys and values, experts and convolutions are
    counted by their weights, and a recurrent layer has no map. Where a tower runs all pictures as one sequence with a
    mask between them (Pixtral), their attention is counted as computed, over all. Norms, activations, the recurrence of
    linear attention, what a tower has before and between its layers, pixels that only pad a picture to the size of
    another, attention inside a projector, a second tower whose features are added to the first one's (DeepSeek-VL
    hybrid), and the scoring itself are not counted.
    """

    tower: int
    projector: int
    decoder: int
    lm_head: int

    @property
    def total(self) -> int:
        return self.tower + self.projector + self.decoder + self.lm_head

    def to_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


def decoder_layer_flops(size: Dimensions, tokens: int, past: int = 0, layer: int = 0, visual: int = 0) -> int:
    """Operations of one decoder layer on `tokens` new tokens, `visual` of them visual, after `past` cached ones.

    >>> layers = (4 * 4096**2,) * 32, (3 * 4096 * 11008,) * 32
    >>> vicuna = Dimensions(4096, *layers, 32, 32, 128, 32000, 24, 1024, 12582912, 588, 20971520)
    >>> round(32 * decoder_layer_flops(vicuna, 576) / 2e12, 3)  # PyramidDrop, table 1: 3.82 TMACs
    3.817
    """
    products = tokens * (size.attention[layer] + size.feed_forward[layer])
    if size.visual:
        products += visual * (size.visual[layer] - size.feed_forward[layer])
    if layer not in size.recurrent:
        products += 2 * tokens * (tokens + past) * size.heads * size.of_layer(layer)[1]
    return 2 * products


def prefill_cost(
    size: Dimensions,
    tokens: list[list[int]],
    past: list[int],
    pictures: list[Picture],
    class_token: bool,
    visual: list[list[int]] | None = None,
) -> Cost:
    """Cost of a prefill.

    Args:
        tokens: per layer, the tokens of every row that it sees; visual: how many of them are visual; None: none.
        past: per layer, tokens cached before.
        pictures: what the tower took in.
        class_token: whether every picture has one token more in the tower.
    """
    shown = visual or [[0] * len(tokens[0])] * len(tokens)
    layers = enumerate(zip(tokens, shown, past, strict=True))
    decoder = sum(
        decoder_layer_flops(size, n, p, layer, own)
        for layer, (rows, of_rows, p) in layers
        for n, own in zip(rows, of_rows, strict=True)
    )
    return Cost(
        tower=_tower_flops(size, pictures, class_token),
        projector=2 * sum(_projected(size, picture) for picture in pictures),
        decoder=decoder,
        lm_head=2 * len(tokens[0]) * size.hidden * size.vocabulary,
    )


def _projected(size: Dimensions, picture: Picture) -> int:
    """Multiplications between tower and decoder."""
    height, width = picture.side
    return picture.tokens * size.projector_weights + height * width * size.patch_weights


def _tower_flops(size: Dimensions, pictures: list[Picture], class_token: bool) -> int:
    flops, runs = 0, defaultdict(list)
    for picture in pictures:
        height, width = picture.side
        flops += 2 * height * width * size.patch_inputs * size.tower_hidden
        # Layers without windows count as the fullest.
        inside = [n + int(class_token) if n else 0 for n in picture.inside]
        runs[picture.run].append((picture, sorted(inside, reverse=True)))
    whole = size.tower_layers - size.windowed_layers
    for run in runs.values():
        for layer in range(size.tower_layers):
            length, parts = sum(inside[layer] for _, inside in run), run[0][0].frames
            windows = sum(_pairs_in_windows(picture, inside[layer], size.window) for picture, inside in run)
            pairs = length**2 // parts if layer < whole else windows
            flops += 2 * length * size.tower_weights + 4 * pairs * size.tower_hidden
    return flops


def _pairs_in_windows(picture: Picture, seen: int, window: int) -> int:
    """Pairs of patches in windows from the upper left corner on, of a picture of which `seen` patches are left."""
    if not window:
        return 0
    height, width = picture.side
    rows, columns = (side // window * window**2 + (side % window) ** 2 for side in (height, width))
    return rows * columns * seen**2 // (height * width) ** 2


def kv_bytes(entry: list[int], tokens: list[list[int]], past: list[int], room: list[int | None]) -> int:
    """Bytes of keys and values in all layers.

    Args:
        entry: per layer, bytes of one token; 0 where nothing is cached.
        tokens: per layer, new tokens of every row; past: those cached before.
        room: per layer, the most tokens of a row that its cache holds; None = any number.
    """
    total = 0
    for own, rows, before, most in zip(entry, tokens, past, room, strict=True):
        total += own * sum(n + before if most is None else min(n + before, most) for n in rows)
    return total
