"""First half of training the embedded model: a CLIP tower that reads handwritten digits.

The tower sees scenes of one to nine digits. Every patch of its last layer must name the digit and the colour whose
ink it shows, and the class token must list all digits and colours of the scene. The first layers start out looking
at their eight neighbours, as a convolution does (Cordonnier et al., "On the Relationship between Self-Attention and
Convolutional Layers", ICLR 2020); from a plain random start the digits take hours on a CPU.

    python training/train_tower.py --out build/tower --minutes 13
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from seeless.tiny.scenes import COLOUR_NAMES, IMAGE_SIZE, PATCH_SIZE, compose, sample_contents

MEAN, STD = 0.3, 0.3
WIDTH, HEADS, LAYERS = 96, 8, 5
POSITION_DIMS = 12
NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))


def tower_of(width: int, layers: int, heads: int, image_size: int, patch_size: int) -> CLIPVisionConfig:
    """The shape of an embedded model's tower."""
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch_size,
        hidden_act="gelu",
        projection_dim=width,
    )


def tower_config() -> CLIPVisionConfig:
    return tower_of(WIDTH, LAYERS, HEADS, IMAGE_SIZE, PATCH_SIZE)


def rate(share: float, step: int, highest: float, last: float = 0.02) -> float:
    """Warm up for 200 steps, then down along a cosine to the share `last` of the highest rate."""
    return highest * min(1, (step + 1) / 200) * (last + (1 - last) * 0.5 * (1 + math.cos(math.pi * share)))


@torch.no_grad()
def start_as_convolution(
    tower: CLIPVisionModel,
    neighbours: Sequence[tuple[int, int]] = NEIGHBOURS,
    sharpness: tuple[float, float, float] = (1.9, 1.9, 1.6),
    frequencies: tuple[float, float, float] = (0.25, 0.7, 1.5),
) -> None:
    """Give the first dimensions to sine positions and point the heads of the first three layers at their neighbours.

    Args:
        frequencies: of the sines, per patch; no two places of the picture may look alike.
        neighbours: (down, across) of each head's, in patches; of the third layer's twice as far away.
    """
    embeddings, layers, config = tower.embeddings, tower.encoder.layers, tower.config
    side = config.image_size // config.patch_size
    place = torch.arange(side).float()
    rows, columns = place.repeat_interleave(side), place.repeat(side)
    axes = [f(axis[:, None] * torch.tensor(frequencies)) for axis in (rows, columns) for f in (torch.sin, torch.cos)]
    position = torch.cat(axes, 1)
    embeddings.position_embedding.weight.zero_()
    embeddings.position_embedding.weight[1:, :POSITION_DIMS] = position
    embeddings.patch_embedding.weight.normal_(0, 1.6 / math.sqrt(3 * config.patch_size**2))
    embeddings.patch_embedding.weight[:POSITION_DIMS] = 0
    head_dim = config.hidden_size // config.num_attention_heads
    for depth, layer in enumerate(layers[:3]):
        attention, reach, sharp = layer.self_attn, (1, 1, 2)[depth], sharpness[depth]
        attention.q_proj.weight.normal_(0, 0.02)
        attention.k_proj.weight.normal_(0, 0.02)
        for head, (dy, dx) in enumerate(neighbours):
            rotation = torch.zeros(POSITION_DIMS, POSITION_DIMS)
            for axis, step in enumerate((dy * reach, dx * reach)):
                for i, frequency in enumerate(frequencies):
                    s, c, turn = 6 * axis + i, 6 * axis + 3 + i, frequency * step
                    rotation[s, s] = rotation[c, c] = math.cos(turn)
                    rotation[s, c], rotation[c, s] = math.sin(turn), -math.sin(turn)
            block = slice(head * head_dim, head * head_dim + POSITION_DIMS)
            attention.q_proj.weight[block, :POSITION_DIMS] = sharp * rotation
            attention.k_proj.weight[block, :POSITION_DIMS] = sharp * torch.eye(POSITION_DIMS)
    for layer in layers:
        torch.nn.init.xavier_uniform_(layer.self_attn.v_proj.weight)
        torch.nn.init.xavier_uniform_(layer.self_attn.out_proj.weight, gain=0.6)
        torch.nn.init.xavier_uniform_(layer.mlp.fc1.weight)
        torch.nn.init.xavier_uniform_(layer.mlp.fc2.weight, gain=0.6)


class Reader(torch.nn.Module):
    """The tower and the three throw-away heads that teach it."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(tower_config())
        start_as_convolution(self.tower)
        self.digit = torch.nn.Linear(WIDTH, 11)
        self.colour = torch.nn.Linear(WIDTH, len(COLOUR_NAMES) + 1)
        self.inventory = torch.nn.Linear(WIDTH, 10 + len(COLOUR_NAMES))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.tower((pixels - MEAN) / STD).last_hidden_state
        hidden = F.layer_norm(hidden, (WIDTH,))
        return self.digit(hidden[:, 1:]), self.colour(hidden[:, 1:]), self.inventory(hidden[:, 0])


def batch(size: int, low: int, high: int, held_out: bool, generator: torch.Generator):
    digits, colours = sample_contents(size, low, high, generator)
    pixels, cell = compose(digits, colours, held_out, generator)
    inside = cell.clamp(min=0)
    digit = torch.where(cell >= 0, digits.gather(1, inside), 10)
    colour = torch.where(cell >= 0, colours.gather(1, inside), len(COLOUR_NAMES))
    present = torch.zeros(size, 10 + len(COLOUR_NAMES))
    for slot in range(9):
        used = (digits[:, slot] >= 0).nonzero()[:, 0]
        present[used, digits[used, slot]] = 1
        present[used, 10 + colours[used, slot]] = 1
    return pixels, digit, colour, present


@torch.no_grad()
def held_out_accuracy(reader: Reader) -> dict[str, float]:
    reader.eval()
    pixels, digit, colour, present = batch(200, 1, 9, True, torch.Generator().manual_seed(5))
    d, c, i = reader(pixels)
    ink = digit < 10
    reader.train()
    return {
        "digit_patches": (d[..., :10].argmax(-1) == digit)[ink].float().mean().item(),
        "colour_patches": (c.argmax(-1) == colour)[ink].float().mean().item(),
        "inventory": ((i > 0).float() == present).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=13)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    reader = Reader()
    optimizer = torch.optim.AdamW(reader.parameters(), lr=options.lr, weight_decay=0.02, betas=(0.9, 0.98))
    options.out.mkdir(parents=True, exist_ok=True)
    log = (options.out / "log.jsonl").open("w")
    started, step, seen, running = time.time(), 0, 0, 0.0
    while (elapsed := time.time() - started) < options.minutes * 60:
        share = elapsed / (options.minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = rate(share, step, options.lr)
        pixels, digit, colour, present = batch(options.batch, 3, 9, False, generator)
        d, c, i = reader(pixels)
        weight = torch.ones(11)
        weight[10] = 0.1
        loss = F.cross_entropy(d.flatten(0, 1), digit.flatten(), weight=weight)
        loss = loss + 0.5 * F.cross_entropy(c.flatten(0, 1), colour.flatten())
        loss = loss + 0.5 * F.binary_cross_entropy_with_logits(i, present)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        step, seen, running = step + 1, seen + options.batch, 0.98 * running + 0.02 * loss.item()
        if step % 250 == 0:
            line = {"step": step, "pictures": seen, "seconds": round(time.time() - started, 1), "loss": running}
            line |= held_out_accuracy(reader)
            print(json.dumps(line), file=log, flush=True)
            reader.tower.save_pretrained(options.out)
    reader.tower.save_pretrained(options.out)
    print(json.dumps({"pictures": seen, **held_out_accuracy(reader)}), file=log, flush=True)


if __name__ == "__main__":
    main()
