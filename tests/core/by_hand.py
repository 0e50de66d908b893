"""Slow, plain float64 references: where every visual token comes from, and what every method thinks of it."""

import math
from dataclasses import dataclass

import torch

from tiny_models import CROP, IMAGE, PATCH, picture

SIDE = CROP // PATCH
TOWER_LAYER = 1  # of three: the one whose output is `hidden_states[-2]`


def tile_cells(size):
    """Rows of (row, column) cells of all tiles' patches that LLaVA-NeXT keeps, after cutting off the padding."""
    across, down = {(51, 60): (2, 2), (30, 64): (2, 1), (64, 64): (2, 2), (64, 25): (1, 2)}[size]
    height, width = down * SIDE, across * SIDE
    rows, columns = range(height), range(width)
    if size[1] / size[0] > width / height:
        cut = (height - int(round(size[0] * width / size[1], 7))) // 2
        rows = range(cut, height - cut)
    else:
        cut = (width - int(round(size[1] * height / size[0], 7))) // 2
        columns = range(cut, width - cut)
    return [[(row, column) for column in columns] for row in rows], across


def origins(variant, size):
    """For every token of an image `(crop, patch)`, or None for a newline."""
    found = [(0, patch) for patch in range(SIDE * SIDE)]
    if variant.family == "llava":
        return found
    cells, across = tile_cells(size)
    for line in cells:
        for row, column in line:
            tile = row // SIDE * across + column // SIDE
            found.append((1 + tile, row % SIDE * SIDE + column % SIDE))
        found.append(None)
    return found


@dataclass
class Picture:
    """One image: the columns of its tokens, their origins, and the tower's attention and features in float64."""

    columns: list
    origins: list
    attention: torch.Tensor  # [crops, heads, patches], the class token's row
    features: torch.Tensor  # [crops, patches, dim], the projector's input

    def class_scores(self):
        """Mean over heads for every token; nan for newlines."""
        mean = self.attention.mean(1)
        return [math.nan if origin is None else mean[origin].item() for origin in self.origins]


@dataclass
class Row:
    """One row of a batch: its real columns, text columns after the last image, and pictures."""

    real: list
    text_after: list
    pictures: list

    @property
    def columns(self):
        return [column for picture in self.pictures for column in picture.columns]

    def anchor(self, column):
        """The first real token after `column` that is not visual."""
        return min(c for c in self.real if c > column and c not in self.columns)


@torch.no_grad()
def read_rows(untouched, variant, rows, inputs):
    """Everything about a batch, from the model's own maps."""
    found = []
    for row, ids, mask in zip(rows, inputs["input_ids"], inputs["attention_mask"], strict=True):
        real = mask.nonzero()[:, 0].tolist()
        visual = (ids == IMAGE).nonzero()[:, 0].tolist()
        pictures, used = [], 0
        for part in row:
            if isinstance(part, str):
                pixels, size = picture(variant, int(part.split(":")[1]))
                own = origins(variant, size)
                crops = (pixels[None] if variant.family == "llava" else pixels).to(untouched.dtype)
                out = untouched.model.vision_tower(crops, output_attentions=True, output_hidden_states=True)
                pictures.append(
                    Picture(
                        visual[used : used + len(own)],
                        own,
                        out.attentions[TOWER_LAYER].double()[:, :, 0, 1:],
                        out.hidden_states[-2].double()[:, 1:],
                    )
                )
                used += len(own)
        assert used == len(visual)
        found.append(Row(real, [c for c in real if not visual or c > visual[-1]], pictures))
    return found


@torch.no_grad()
def decoder_maps(untouched, inputs):
    """Per decoder layer `[batch, heads, seq, seq]` in float64."""
    return [a.double() for a in untouched(**inputs, output_attentions=True, use_cache=False).attentions]


def fastv(maps, layer, row, index):
    """Mean over heads of the last row of the layer before."""
    attention = maps[layer - 1][index]
    return [sum(head[row.real[-1], c].item() for head in attention) / len(attention) for c in row.columns]


def priortr(maps, layer, row, index, columns, query, head, last_row):
    """P ln((P + e) / (Q + e)) for the tokens of one unit in `columns`."""
    attention = maps[layer - 1][index]
    if query == "last":
        rows = [row.real[-1]]
    else:
        rows = row.text_after if last_row or len(row.text_after) < 2 else row.text_after[:-1]
    reduce = (lambda values: sum(values) / len(values)) if head == "mean" else max
    p = [reduce([sum(h[r, c].item() for r in rows) / len(rows) for h in attention]) for c in columns]
    q = [reduce([h[row.anchor(columns[-1]), c].item() for h in attention]) for c in columns]
    p, q = ([value / (sum(values) + 1e-10) for value in values] for values in (p, q))
    return [a * math.log((a + 1e-10) / (b + 1e-10)) for a, b in zip(p, q, strict=True)]


def coming_attention(model, layer, hidden, columns, wanted):
    """Attention the last of `columns` would pay in `layer`, from its input and weights alone: mean over heads.

    Positions count `columns` from 0, as "renumber" does.
    """
    config, block = model.config.text_config, model.model.language_model.layers[layer]
    x = hidden[columns].double()
    x = x * (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).rsqrt() * block.input_layernorm.weight.double()

    def project(linear):
        y = x @ linear.weight.double().T
        return y if linear.bias is None else y + linear.bias.double()

    dim = config.head_dim if getattr(config, "head_dim", None) else config.hidden_size // config.num_attention_heads
    query = project(block.self_attn.q_proj).view(len(columns), -1, dim)
    keys = project(block.self_attn.k_proj).view(len(columns), -1, dim)
    base = config.rope_parameters["rope_theta"]
    turn = torch.arange(len(columns))[:, None] * base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def rotated(y):
        number = torch.complex(y[..., : dim // 2], y[..., dim // 2 :])
        number = number * torch.polar(torch.ones_like(turn), turn)[:, None]
        return torch.cat([number.real, number.imag], -1)

    query, keys = rotated(query)[-1], rotated(keys)
    group = query.shape[0] // keys.shape[1]
    maps = torch.stack([(keys[:, h // group] @ q / dim**0.5).softmax(0) for h, q in enumerate(query)])
    mean = maps.mean(0)
    return [mean[columns.index(c)].item() for c in wanted]


def best(scores, count):
    """Places of the `count` highest, ties to the lower place, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def vispruner(scores, features, count, ratio, as_released):
    """methods.md 6.1 for one crop: `scores` a list, `features` a list of vectors; places that stay, ascending."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    important = int(count * ratio)
    keep, rest, wanted = order[:important], order[important:], count - important
    unit = [[x / math.sqrt(sum(y * y for y in f)) for x in f] for f in features]
    while len(rest) > wanted and wanted:
        a, b = rest[0::2], rest[1::2]
        leave = min(8, len(rest) - wanted, len(a))
        alike = {i: max(sum(x * y for x, y in zip(unit[i], unit[k], strict=True)) for k in b) for i in a}
        stay = sorted(a, key=lambda i: -alike[i])[leave:]
        rest = (stay if as_released else stay[::-1]) + b
    return sorted(keep + (rest if wanted else []))
