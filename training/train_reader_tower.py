"""First part of training the embedded model `reader`: a CLIP tower that says of every patch what it shows.

Every patch of the last layer must name what its ink belongs to: which letter at which place of a word, which digit or
shape, its colour, its place, the bar it is part of and that bar's value, and so on. The class token must list all that
is in the picture. Of most pictures only patches with ink, their neighbours and some others are shown, which makes a
step several times as cheap; at the end all are. The first layers start as a convolution, see train_tower.py.

    python training/train_reader_tower.py --out build/reader-tower --minutes 24
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from reader_sights import FIELDS, SIZES, chosen, inventory, sights, stream
from seeless.reader.canvas import IMAGE_SIZE, PATCH_SIZE, SIDE
from seeless.reader.drawing import Drawing
from seeless.reader.drawings import DRAWERS
from seeless.reader.things import draw_things
from train_tower import MEAN, STD, rate, start_as_convolution, tower_of

WIDTH, HEADS, LAYERS = 192, 6, 6
NEIGHBOURS = ((0, -1), (0, 1), (-1, 0), (1, 0), (0, -2), (0, 2))  # of each head of the first layers: text runs across
SHARES = (0.62, 0.12, 0.1, 0.16)
ALL = SIDE**2
BACKGROUND = 0.1  # what a patch without ink counts


def tower_config() -> CLIPVisionConfig:
    return tower_of(WIDTH, LAYERS, HEADS, IMAGE_SIZE, PATCH_SIZE)


def plain_attention(module, query, key, value, attention_mask, scaling, **unused):
    """Attention as two products of matrices: in bfloat16 on a CPU, forward and back, four times as fast as sdpa."""
    weights = torch.softmax(query @ key.transpose(-1, -2) * scaling, -1)
    return (weights @ value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("plain", plain_attention)


class Teacher(torch.nn.Module):
    """The tower and the throw-away heads that teach it."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel._from_config(tower_config(), attn_implementation="plain")
        start_as_convolution(self.tower, NEIGHBOURS, (2.9, 2.9, 2.4), (0.22, 1.06, 1.72))
        self.patch = torch.nn.Linear(WIDTH, sum(SIZES))
        self.inventory = torch.nn.Linear(WIDTH, sum(SIZES))

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[batch, patches, words]` of the patches, and `[batch, words]` of the whole picture.

        Args:
            hidden: what `see` gives of the tower.
        """
        hidden = F.layer_norm(hidden, (WIDTH,))
        return self.patch(hidden[:, 1:]), self.inventory(hidden[:, 0])


def see(tower: CLIPVisionModel, pixels: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The tower's last hidden states `[batch, 1 + patches, width]`, of the class token and the patches at `places`.

    Args:
        pixels: `[batch, 192, 192, 3]` in uint8.
    """
    embeddings = tower.embeddings
    scaled = (pixels.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    patches = embeddings.patch_embedding(scaled).flatten(2).transpose(1, 2)
    positions = embeddings.position_embedding.weight
    patches = patches.gather(1, places[..., None].expand(-1, -1, WIDTH)) + positions[1:][places]
    first = (embeddings.class_embedding + positions[0]).expand(len(pixels), 1, -1)
    return tower.encoder(inputs_embeds=tower.pre_layrnorm(torch.cat([first, patches], 1))).last_hidden_state


def drawn(rng: np.random.Generator, held_out: bool) -> Drawing:
    """A drawing with many things."""
    kind = rng.choice(len(DRAWERS), p=SHARES)
    return draw_things(rng, held_out, fewest=6) if kind == 0 else DRAWERS[kind](rng, held_out)


def batch(rng: np.random.Generator, size: int, patches: int, held_out: bool = False) -> dict[str, torch.Tensor]:
    drawings = [drawn(rng, held_out) for _ in range(size)]
    seen = [sights(drawing) for drawing in drawings]
    places = [chosen(drawing.owner, patches, rng) for drawing in drawings]
    return {
        "pixels": torch.from_numpy(np.stack([drawing.pixels for drawing in drawings])),
        "places": torch.from_numpy(np.stack(places)),
        "sights": torch.from_numpy(np.stack([s[p] for s, p in zip(seen, places, strict=True)])).long(),
        "present": torch.from_numpy(np.stack([inventory(s) for s in seen])).float(),
    }


def losses(teacher: Teacher, hidden: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """Sum over the fields of how wrong the patches are told, plus how wrong the class token's list is."""
    logits, present = teacher(hidden)
    ink = data["sights"][..., 0] > 0
    weight = torch.where(ink, 1.0, BACKGROUND)
    total = 3 * F.binary_cross_entropy_with_logits(present.float(), data["present"])
    for field, part in zip(data["sights"].unbind(-1), logits.float().split(SIZES, -1), strict=True):
        each = F.cross_entropy(part.flatten(0, 1), field.flatten(), reduction="none").view(weight.shape)
        total = total + (each * weight).sum() / weight.sum()
    return total


@torch.no_grad()
def held_out_accuracy(teacher: Teacher, pictures: int = 96) -> dict[str, float]:
    """Per field the share of patches with ink and such a word that are named rightly; all patches are shown."""
    right, asked, listed = np.zeros(len(SIZES)), np.zeros(len(SIZES)), 0.0
    for part in range(pictures // 16):
        data = batch(np.random.default_rng((99, part)), 16, ALL, held_out=True)
        logits, present = teacher(see(teacher.tower, data["pixels"], data["places"]))
        listed += ((present > 0).float() == data["present"]).float().mean().item() * 16 / pictures
        for i, (field, each) in enumerate(zip(data["sights"].unbind(-1), logits.split(SIZES, -1), strict=True)):
            right[i] += ((each.argmax(-1) == field) & (field > 0)).sum().item()
            asked[i] += (field > 0).sum().item()
    return {name: round(r / a, 4) for name, r, a in zip(FIELDS, right, asked, strict=True)} | {"present": listed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=23)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patches", type=int, default=144, help="shown of a picture, until the last fifth of the time")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    teacher = Teacher()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=options.lr, weight_decay=0.02, betas=(0.9, 0.98))
    options.out.mkdir(parents=True, exist_ok=True)
    state, step, seen, before = options.out / "state.pt", 0, 0, 0.0
    if state.exists():
        held = torch.load(state)
        teacher.load_state_dict(held["teacher"])
        optimizer.load_state_dict(held["optimizer"])
        step, seen, before = held["step"], held["seen"], held["seconds"]
    log = (options.out / "log.jsonl").open("a")
    limit, running, started, full = options.minutes * 60, 0.0, time.time(), False

    def save(seconds: float) -> None:
        held = {"teacher": teacher.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**held, "step": step, "seen": seen, "seconds": seconds}, state.with_suffix(".new"))
        os.replace(state.with_suffix(".new"), state)
        teacher.tower.save_pretrained(options.out)

    batches = stream(partial(batch, size=options.batch, patches=options.patches), options.seed, step)
    while (elapsed := before + time.time() - started) < limit:
        if not full and elapsed > 0.8 * limit:
            full, batches = True, stream(partial(batch, size=options.batch // 2, patches=ALL), options.seed, step)
        for group in optimizer.param_groups:
            group["lr"] = rate(elapsed / limit, step, options.lr)
        data = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss = losses(teacher, see(teacher.tower, data["pixels"], data["places"]), data)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        step, seen, running = step + 1, seen + len(data["pixels"]), 0.98 * running + 0.02 * loss.item()
        if step % 250 == 0:
            seconds = before + time.time() - started
            line = {"step": step, "pictures": seen, "seconds": round(seconds, 1), "loss": round(running, 4)}
            print(json.dumps(line | held_out_accuracy(teacher)), file=log, flush=True)
            save(seconds)
    save(limit)
    print(json.dumps({"pictures": seen, **held_out_accuracy(teacher, 320)}), file=log, flush=True)


if __name__ == "__main__":
    main()
