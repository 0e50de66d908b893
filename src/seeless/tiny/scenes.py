"""Scenes for the embedded model: real handwritten digits, coloured, on a noisy dark ground, and questions about them.

The digits are the 1,797 8x8 pictures of scikit-learn's `load_digits` (UCI "Optical Recognition of Handwritten
Digits"), stored beside this file. 1,400 of them are for training and 397 are held out; a scene uses one side only.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SIZE = 96
PATCH_SIZE = 8
CELL = 32
MAX_DIGITS = 5

COLOURS = {
    "red": (0.92, 0.12, 0.12),
    "green": (0.10, 0.78, 0.18),
    "blue": (0.18, 0.32, 0.98),
    "yellow": (0.96, 0.90, 0.12),
    "cyan": (0.10, 0.88, 0.90),
    "magenta": (0.92, 0.14, 0.88),
    "orange": (0.98, 0.52, 0.06),
    "white": (0.95, 0.95, 0.95),
}
COLOUR_NAMES = tuple(COLOURS)

QUESTION_TYPES = ("digit", "colour", "count")
TEMPLATES = {
    "digit": ("which digit is {colour}?", "which number is {colour}?", "what digit is {colour}?"),
    "colour": ("what colour is the {digit}?", "what color is the {digit}?", "which colour is the {digit}?"),
    "count": ("how many digits are there?", "how many digits?", "how many numbers are there?"),
}


@dataclass(frozen=True)
class Question:
    """A question about a scene: its `kind` (one of `QUESTION_TYPES`), its `text` and the one-word `answer`."""

    kind: str
    text: str
    answer: str


@dataclass(frozen=True)
class Scene:
    """One picture and what is in it: `pixels` `[3, 96, 96]` in 0..1, the digits and their colours, the questions."""

    pixels: torch.Tensor
    digits: tuple[int, ...]
    colours: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def image(self) -> "Image":
        """The picture as an RGB PIL image of 96x96 pixels."""
        from PIL import Image

        return Image.fromarray((self.pixels * 255).round().byte().permute(1, 2, 0).numpy())


@cache
def digit_pictures(held_out: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `[n, 8, 8]` in 0..1 and labels `[n]` of one side of the split."""
    import numpy

    with numpy.load(Path(__file__).with_name("digits.npz")) as data:
        side = data["held_out"] == held_out
        pictures, labels = data["pictures"][side], data["labels"][side]
    return torch.from_numpy(pictures).float() / 16, torch.from_numpy(labels).long()


def _glyphs(digits: torch.Tensor, held_out: bool, generator: torch.Generator) -> torch.Tensor:
    """Ink `[n, 32, 32]` in 0..1: for each wanted digit one handwritten picture, slightly turned, scaled and shifted."""
    pictures, labels = digit_pictures(held_out)
    choice = torch.empty_like(digits)
    for value in range(10):
        wanted, have = (digits == value).nonzero()[:, 0], (labels == value).nonzero()[:, 0]
        choice[wanted] = have[torch.randint(len(have), (len(wanted),), generator=generator)]
    n = len(digits)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    size = uniform(22, 31)
    angle, shear = uniform(-0.22, 0.22), uniform(-0.15, 0.15)
    zoom = CELL / size
    room = (1 - size / CELL).clamp(min=0)
    shift_x, shift_y = uniform(-1, 1) * room, uniform(-1, 1) * room
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack(
        [
            torch.stack([cos, -sin + shear * zoom, -(cos * shift_x + (-sin + shear * zoom) * shift_y)], -1),
            torch.stack([sin, cos, -(sin * shift_x + cos * shift_y)], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [n, 1, CELL, CELL], align_corners=False)
    ink = F.grid_sample(pictures[choice][:, None], grid, mode="bicubic", align_corners=False)[:, 0]
    return (ink * uniform(1.1, 1.5)[:, None, None]).clamp(0, 1)


def compose(
    digits: torch.Tensor, colours: torch.Tensor, held_out: bool, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a batch of scenes.

    Args:
        digits: `[batch, 9]`, the digit in each of the 3x3 cells, -1 where the cell stays empty.
        colours: `[batch, 9]`, index into `COLOUR_NAMES`.
        held_out: draw the digits from the held-out side.
        generator: the only source of randomness.

    Returns:
        Pictures `[batch, 3, 96, 96]` in 0..1, and for every 8x8 patch the cell `[batch, 144]` whose ink it shows
        (-1: background).
    """
    batch = len(digits)
    ink = torch.zeros(batch, 9, CELL, CELL)
    ink[digits >= 0] = _glyphs(digits[digits >= 0], held_out, generator)
    palette = torch.tensor(list(COLOURS.values()))
    paint = palette[colours] + 0.06 * torch.randn(batch, 9, 3, generator=generator)
    paint = paint * (0.8 + 0.2 * torch.rand(batch, 9, 1, generator=generator))

    def tile(cells: torch.Tensor) -> torch.Tensor:  # [batch, 9, c, 32, 32] -> [batch, c, 96, 96]
        cells = cells.view(batch, 3, 3, -1, CELL, CELL)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, IMAGE_SIZE, IMAGE_SIZE)

    alpha, colour = tile(ink[:, :, None]), tile((ink[..., None] * paint[:, :, None, None]).permute(0, 1, 4, 2, 3))
    owner = tile(torch.arange(9.0).view(1, 9, 1, 1, 1).expand(batch, 9, 1, CELL, CELL).clone())
    slope = torch.randn(batch, 3, 2, 1, 1, generator=generator) * 0.05
    axis = torch.linspace(-1, 1, IMAGE_SIZE)
    ground = 0.12 + 0.08 * torch.rand(batch, 3, 1, 1, generator=generator)
    ground = ground + slope[:, :, 0] * axis[None, None, :, None] + slope[:, :, 1] * axis[None, None, None, :]
    pixels = ground * (1 - alpha) + colour
    pixels = pixels + 0.04 * torch.randn(pixels.shape, generator=generator)

    mass = F.avg_pool2d(alpha, PATCH_SIZE)[:, 0]
    cell = owner[:, 0, PATCH_SIZE // 2 :: PATCH_SIZE, PATCH_SIZE // 2 :: PATCH_SIZE].long()
    return pixels.clamp(0, 1), torch.where(mass > 0.08, cell, -1).flatten(1)


def sample_contents(
    batch: int, digits_low: int, digits_high: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random contents `([batch, 9], [batch, 9])` for `compose`; digits differ within a scene, and so do the colours
    (up to eight; a ninth repeats one)."""
    count = torch.randint(digits_low, digits_high + 1, (batch, 1), generator=generator)
    digits = torch.rand(batch, 10, generator=generator).argsort(1)[:, :9]
    order = torch.rand(batch, len(COLOUR_NAMES), generator=generator).argsort(1)
    colours = torch.cat([order, order[:, :1]], 1)
    used = torch.rand(batch, 9, generator=generator).argsort(1).argsort(1) < count
    return torch.where(used, digits, -1), colours


def ask(digits: list[int], colours: list[str], generator: torch.Generator) -> tuple[Question, ...]:
    """Questions about one scene: the count, and for each digit either its colour or which digit has that colour.

    No digit is asked about twice, so no answer can be read off an earlier turn.
    """

    def pick(kind: str) -> str:
        return TEMPLATES[kind][int(torch.randint(len(TEMPLATES[kind]), (), generator=generator))]

    questions = [Question("count", pick("count"), str(len(digits)))]
    for digit, colour in zip(digits, colours, strict=True):
        if torch.rand((), generator=generator) < 0.5:
            questions.append(Question("digit", pick("digit").format(colour=colour), str(digit)))
        else:
            questions.append(Question("colour", pick("colour").format(digit=digit), colour))
    order = torch.randperm(len(questions), generator=generator).tolist()
    return tuple(questions[i] for i in order)


def draw_scene(seed: int, held_out: bool = True) -> Scene:
    """One scene of one to five digits with its questions; the same seed always gives the same scene.

    >>> scene = draw_scene(seed=1)
    >>> scene.pixels.shape, len(scene.digits) == len(scene.colours)
    (torch.Size([3, 96, 96]), True)
    """
    return draw_scenes(1, torch.Generator().manual_seed(seed), held_out)[0]


def draw_scenes(batch: int, generator: torch.Generator, held_out: bool) -> list[Scene]:
    """`batch` scenes of one to five digits, drawn together."""
    digits, colours = sample_contents(batch, 1, MAX_DIGITS, generator)
    pixels, _ = compose(digits, colours, held_out, generator)
    scenes = []
    for row in range(batch):
        used = digits[row] >= 0
        values = digits[row][used].tolist()
        names = [COLOUR_NAMES[i] for i in colours[row][used].tolist()]
        scenes.append(Scene(pixels[row], tuple(values), tuple(names), ask(values, names, generator)))
    return scenes
