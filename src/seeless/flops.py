"""Analytic cost of one prefill, from the sizes of a model alone."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model that decide what a forward costs.

    Args:
        hidden, intermediate, heads, kv_heads, head_dim, vocabulary: of the decoder.
        gated: whether its feed-forward network has a gate (three matrices instead of two).
        tower_layers, tower_hidden: of the vision tower.
        tower_weights: weights of the matrices of one of its layers, on average.
        patch_inputs: numbers in one patch, 3 * patch_size**2.
        projector_weights: weights of the matrices between tower and decoder.
        windowed_layers, window: tower layers whose attention stays in windows of so many patches; 0 = has none.
        gate: weights of the matrices that attention has beside those of queries, keys, values and output.
        mixers: per decoder layer, the weights of the matrices of what it has in place of attention (a recurrent layer);
            None where it has attention; empty if all have.
    """

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    gated: bool
    tower_layers: int
    tower_hidden: int
    tower_weights: int
    patch_inputs: int
    projector_weights: int
    windowed_layers: int = 0
    window: int = 0
    gate: int = 0
    mixers: tuple[int | None, ...] = ()

    def mixer(self, layer: int) -> int | None:
        """What a decoder layer has in place of attention; None if it has attention."""
        return self.mixers[layer] if self.mixers else None


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of one prefill, a multiply and an add counted as two.

    With n tokens, d hidden, m intermediate, h heads and g key heads of size e, a decoder layer costs
    `2 (2 n d h e + 2 n d g e + 2 n s h e + 3 n d m)`, s = n plus the tokens cached before. With h e = g e = d this is
    twice the `4 n d^2 + 2 n^2 d + 3 n d m` of PyramidDrop (arXiv 2410.17247, section 3.3), which counts
    multiply-accumulates; the causal half of the attention map is counted in full, as there. A tower layer costs
    `2 (p w + 2 p^2 d)` for p patches (and class token), w weights, w = 4 d^2 + 2 d m in a plain encoder (Chen et al.,
    arXiv 2403.06764, section 4.2), the projector two operations per weight and token, the lm_head `2 d vocabulary` for
    one position per row, as in `generate`. A decoder layer with w weights in place of attention (linear attention, a
    convolution) costs `2 (n w + 3 n d m)`, a gate on attention 2 n more per weight. Norms, activations, convolutions,
    the recurrence of linear attention, what a tower has between its layers and the scoring itself are not counted.
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


def decoder_layer_flops(size: Dimensions, tokens: int, past: int = 0, layer: int = 0) -> int:
    """Operations of one decoder layer on `tokens` new tokens after `past` cached ones.

    >>> vicuna = Dimensions(4096, 11008, 32, 32, 128, 32000, True, 24, 1024, 12582912, 588, 20971520)
    >>> round(32 * decoder_layer_flops(vicuna, 576) / 2e12, 3)  # PyramidDrop, table 1: 3.82 TMACs
    3.817
    """
    feed_forward = (3 if size.gated else 2) * tokens * size.hidden * size.intermediate
    if (mixer := size.mixer(layer)) is not None:
        return 2 * (tokens * mixer + feed_forward)
    inner, inner_kv = size.heads * size.head_dim, size.kv_heads * size.head_dim
    projections = 2 * tokens * size.hidden * (inner + inner_kv) + tokens * size.gate
    attention = 2 * tokens * (tokens + past) * inner
    return 2 * (projections + attention + feed_forward)


def prefill_cost(
    size: Dimensions,
    tokens: list[list[int]],
    past: list[int],
    pictures: list[int],
    inside: list[list[int]],
    projected: int,
    class_token: bool,
) -> Cost:
    """Cost of a prefill.

    Args:
        tokens: per layer, the tokens of every row that it sees.
        past: per layer, tokens cached before.
        pictures: patches of every picture the tower took in.
        inside: per picture, the patches that each layer of the tower saw, and a class token more if `class_token`.
        projected: tokens that came out of the projector.
    """
    layers = enumerate(zip(tokens, past, strict=True))
    decoder = sum(decoder_layer_flops(size, n, p, layer) for layer, (rows, p) in layers for n in rows)
    return Cost(
        tower=sum(
            _tower_flops(size, patches, seen, class_token) for patches, seen in zip(pictures, inside, strict=True)
        ),
        projector=2 * projected * size.projector_weights,
        decoder=decoder,
        lm_head=2 * len(tokens[0]) * size.hidden * size.vocabulary,
    )


def _tower_flops(size: Dimensions, patches: int, inside: list[int], class_token: bool) -> int:
    seen = sorted((n + int(class_token) for n in inside), reverse=True)  # layers without windows count as the fullest
    weights = 2 * sum(seen) * size.tower_weights
    pairs = sum(n * n for n in seen[: size.tower_layers - size.windowed_layers])
    pairs += sum(n * min(n, size.window) for n in seen[size.tower_layers - size.windowed_layers :])
    return weights + 4 * pairs * size.tower_hidden + 2 * patches * size.patch_inputs * size.tower_hidden


def kv_bytes(size: Dimensions, tokens: list[list[int]], past: list[int], bytes_per_number: int) -> int:
    """Bytes of the keys and values that all layers with attention hold: `2 kv_heads head_dim bytes` per token and
    layer."""
    layers = [pair for layer, pair in enumerate(zip(tokens, past, strict=True)) if size.mixer(layer) is None]
    held = sum(sum(rows) + p * len(rows) for rows, p in layers)
    return held * 2 * size.kv_heads * size.head_dim * bytes_per_number
