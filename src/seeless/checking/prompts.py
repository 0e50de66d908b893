"""Prompts with pictures for a tiny model, as raw tensors: no processor, no tokenizer."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

import seeless as sl
from seeless.checking.shrinking import VOCABULARY
from seeless.errors import with_kind

TEXT = range(3, 90)  # ids of words
NO_WORDS = [*range(TEXT.start), *range(TEXT.stop, VOCABULARY)]
ROWS = ([5, 0, 9], [3, 1, 4, 2, 6], [14], [2, 3, 3])  # words, pictures between them by their number
SIDES = ((2, 2), (2, 3), (3, 2), (2, 4))  # of pictures of any size, in tokens
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")  # 1 on placeholders, or behind a prompt that sees itself

EXPERT_TYPES = "moe_mm_token_type_ids"  # 1 on placeholders and markers around them


@dataclass(frozen=True)
class Prompts:
    """A batch for a model.

    Args:
        inputs: what the model is called with, `input_ids` `[batch, seq]` and the like.
        visual: `[batch, seq]` bool, the placeholders.
        answer_type: token type of answers.
    """

    inputs: dict[str, torch.Tensor]
    visual: torch.Tensor
    answer_type: int

    def continued(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """The inputs with answers: `ids` `[batch, seq + new]`."""
        new = ids.shape[1] - self.visual.shape[1]
        grown = {**self.inputs, "input_ids": ids}
        values = {"attention_mask": 1, EXPERT_TYPES: 0, **dict.fromkeys(TOKEN_TYPES, self.answer_type)}
        for name, value in values.items():
            if name in grown:
                grown[name] = torch.nn.functional.pad(grown[name], (0, new), value=value)
        return grown


class Pictures:
    """Random pictures in the form in which a model takes them.

    Args:
        model: the stock model.
        base: the part of it that has `get_image_features`.

    Raises:
        UnsupportedModel: its `get_image_features` takes none of the forms that are known.
    """

    kind: Literal["image", "video"] = "image"
    pixels = "pixel_values"
    frames = 1  # of every picture

    def __init__(self, model: Any, base: Any, family: sl.Family) -> None:
        self.base, self.family, self.config = base, family, model.config
        self.encode = getattr(base, f"get_{self.kind}_features", None)
        self.asked = set(inspect.signature(self.encode or base.get_image_features).parameters)
        if (older := "pixel_values_images") in self.asked:  # Video-LLaVA's, before transformers 5.20
            self.pixels = older
        self.form = self._known_form()

    def arguments(self, numbers: list[int]) -> dict[str, Any]:
        """The base model's arguments for some pictures, by their numbers."""
        return self.form(numbers)

    def tokens(self, number: int) -> int:
        """Visual tokens that the stock model makes of a picture."""
        from seeless.models import visual_features

        with torch.no_grad():
            if self.encode is None:  # videos that are encoded as images are
                features = self.base.get_image_features(self.arguments([number])[self.pixels])
            else:
                features = self.encode(**self.arguments([number]))
        features = visual_features(features)
        parts = [features] if isinstance(features, torch.Tensor) else features
        return sum(part.shape[:-1].numel() for part in parts)

    def _known_form(self) -> Callable[[list[int]], dict[str, Any]]:
        tried = []
        for form in self._forms():
            self.form = form
            try:
                self.tokens(0)
            except Exception as error:  # another form may suit the model
                tried.append(with_kind(error))
            else:
                return form
        raise sl.UnsupportedModel(
            f"get_{self.kind}_features of {type(self.base).__name__} takes {self.kind}s in none of the {len(tried)} "
            f"forms known here ({'; '.join(dict.fromkeys(tried))}); look at grids, sizes and packer of the family"
        )

    def _forms(self) -> Iterator[Callable[[list[int]], dict[str, Any]]]:
        if self.kind in self.family.places:
            yield self._placed
        elif f"{self.kind}_token_pooling" in self.asked:
            yield self._indexed
        elif self.kind in self.family.grids:
            yield from (self._padded_patches,) if self.family.padded else (self._flat_patches, self._square_patches)
            yield from (self._side_by_side,) if self.family.merging_layer is not None else ()
        elif self.family.packer is not None:
            yield self._tiles
        else:
            yield from (self._sized,) if self.family.sizes else ()
            yield from (self._pixels, self._in_one_row)

    # Pictures of any size, as patches.

    def _sides(self, number: int) -> tuple[int, int]:
        merge = int(self._number(self.family.merge)) if self.family.merge else 1
        height, width = SIDES[number % len(SIDES)]
        return 2 * merge * height, 2 * merge * width

    def _shown(self, numbers: list[int]) -> list[tuple[tuple[int, int], int]]:
        """(height, width) in tokens of all pictures, frame by frame, and a number of its own for each."""
        return [(SIDES[n % len(SIDES)], n + 100 * frame) for n in numbers for frame in range(self.frames)]

    def _number(self, path: str) -> float:
        value: Any = self.config
        for name in path.split("."):
            value = getattr(value, name)
        value = value[0] if isinstance(value, list | tuple) else value
        return 1 / value if value < 1 else value

    def _patches(self, numbers: list[int], *shape: int) -> dict[str, Any]:
        sides = [self._sides(number) for number in numbers]
        own = self.frames
        pixels = [_noise((own * h * w, *shape), number) for (h, w), number in zip(sides, numbers, strict=True)]
        grids = {self.family.grids[self.kind]: torch.tensor([(own, *side) for side in sides])}
        more = {}
        if (sizes := f"{self.kind}_merge_sizes") in self.asked:  # patches per side that make a token
            more[sizes] = torch.ones(len(numbers), dtype=torch.long)
        return {self.pixels: torch.cat(pixels), **grids, **more}

    def _flat_patches(self, numbers: list[int]) -> dict[str, Any]:
        tower = self.config.vision_config
        channels = int(getattr(tower, "num_channels", 0) or getattr(tower, "in_channels", 3))
        patch = int(tower.patch_size)
        frames = int(getattr(tower, "temporal_patch_size", 0) or 1)
        return self._patches(numbers, channels * frames * patch * patch)

    def _square_patches(self, numbers: list[int]) -> dict[str, Any]:
        patch = self.config.vision_config.patch_size
        return self._patches(numbers, 3, patch, patch)

    def _padded_patches(self, numbers: list[int]) -> dict[str, Any]:
        """In one batch, filled up to the longest at their ends."""
        sides, width = [self._sides(number) for number in numbers], 3 * self.config.vision_config.patch_size**2
        most = max(height * width for height, width in sides)
        pixels, seen = torch.zeros(len(numbers), most, width), torch.zeros(len(numbers), most, dtype=torch.long)
        for place, ((high, wide), number) in enumerate(zip(sides, numbers, strict=True)):
            pixels[place, : high * wide], seen[place, : high * wide] = _noise((high * wide, width), number), 1
        grids = {self.family.grids["image"]: torch.tensor(sides)}
        return {"pixel_values": pixels, "pixel_attention_mask": seen, **grids}

    def _side_by_side(self, numbers: list[int]) -> dict[str, Any]:
        """One row of patches, of which tower and projector each make one of four."""
        patch, shown = self.config.vision_config.patch_size, self._shown(numbers)
        sides = [side for side, _ in shown]
        parts = [_noise((1, 3, patch, patch * 16 * h * w), seed) for (h, w), seed in shown]
        grids = {self.family.grids[self.kind]: torch.tensor([(4 * h, 4 * w) for h, w in sides])}
        return {self.pixels: torch.cat(parts, -1), **grids}

    def _placed(self, numbers: list[int]) -> dict[str, Any]:
        """In one batch with the column and row of every patch, -1 behind them."""
        width = 3 * self.config.vision_config.patch_size**2
        merge = int(self._number(str(self.family.merge)))
        shown, most = self._shown(numbers), max(merge * merge * high * wide for high, wide in SIDES)
        pixels, places = torch.zeros(len(shown), most, width), torch.full((len(shown), most, 2), -1)
        for place, ((high, wide), seed) in enumerate(shown):
            count = merge * high * merge * wide
            pixels[place, :count] = _noise((count, width), seed).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(merge * high), torch.arange(merge * wide), indexing="ij")
            places[place, :count] = torch.stack([columns, rows], -1).flatten(0, 1)
        given = {self.pixels: pixels, self.family.places[self.kind]: places}
        if self.kind == "video" and self.family.frames is not None:
            given[self.family.frames] = torch.full((len(numbers),), self.frames)
        return given

    def _indexed(self, numbers: list[int]) -> dict[str, Any]:
        """With the four patches that each token is made of: of a picture as a whole, 2 x 2 tokens, and of its crops."""
        tower = self.config.vision_config
        room, width = tower.num_position_embeddings, 3 * tower.patch_size**2
        pixels, index, grids = [], [], []
        for place, number in enumerate(numbers):
            high, wide = SIDES[number % len(SIDES)]
            video = self.kind == "video"
            count = self.frames * high * wide if video else 4 + high * wide
            pixels.append(_noise((1, room, width), number))
            index.append(place * room + torch.arange(4 * count).view(count, 4))
            grids.append((self.frames, high, wide) if video else (2, 2, high, wide))
        return {
            self.pixels: torch.cat(pixels),
            f"{self.kind}_token_pooling": torch.cat(index),
            self.family.grids[self.kind]: torch.tensor(grids),
        }

    # Pictures as pixels.

    def _side(self) -> int:
        side = getattr(self.config.vision_config, "image_size", None) or 32
        return side if isinstance(side, int) else side[0]

    def _pixels(self, numbers: list[int]) -> dict[str, Any]:
        side = self._side()
        pixels = {self.pixels: torch.cat([_noise((1, 3, side, side), number) for number in numbers])}
        if "high_res_pixel_values" in self.asked:  # the same pictures, larger, for a second tower
            side = self.config.high_res_vision_config.image_size
            larger = [_noise((1, 3, side, side), 100 + number) for number in numbers]
            pixels["high_res_pixel_values"] = torch.cat(larger)
        return pixels

    def _sized(self, numbers: list[int]) -> dict[str, Any]:
        patch = self.config.vision_config.patch_size
        sizes = [tuple(patch * side for side in self._sides(number)) for number in numbers]
        most = max(max(size) for size in sizes)
        pixels = torch.zeros(len(numbers), 3, most, most)
        for place, ((height, width), number) in enumerate(zip(sizes, numbers, strict=True)):
            pixels[place, :, :height, :width] = _noise((3, height, width), number)
        return {"pixel_values": pixels, str(self.family.sizes): torch.tensor(sizes)}

    def _in_one_row(self, numbers: list[int]) -> dict[str, Any]:
        given = self._pixels(numbers)
        return {**given, "pixel_values": given["pixel_values"][None]}

    def _tiles(self, numbers: list[int]) -> dict[str, Any]:
        """A base crop and one or two tiles beside or below each other; unused crops are zeros."""
        side = self._side()
        sizes = [(side, side), (side, 2 * side), (2 * side, side)]
        chosen = [sizes[number % 3] for number in numbers]
        pixels = torch.zeros(len(numbers), 3, 3, side, side)
        for place, (size, number) in enumerate(zip(chosen, numbers, strict=True)):
            crops = 1 + size[0] * size[1] // side**2
            pixels[place, :crops] = _noise((crops, 3, side, side), number)
        return {"pixel_values": pixels, "image_sizes": torch.tensor(chosen)}


class Videos(Pictures):
    """Random videos in the form in which a model takes them."""

    kind = "video"
    pixels = "pixel_values_videos"
    frames = 2

    def _forms(self) -> Iterator[Callable[[list[int]], dict[str, Any]]]:
        if self.kind in self.family.grids or self.kind in self.family.places:
            yield from super()._forms()
        else:
            yield self._stacked

    def _stacked(self, numbers: list[int]) -> dict[str, Any]:
        side, own = self._side(), self.frames
        return {self.pixels: torch.stack([_noise((own, 3, side, side), number) for number in numbers])}


def make_prompts(
    model: Any, base: Any, family: sl.Family, pictures: Pictures, rows: Sequence[list[int]], apart: bool = False
) -> Prompts:
    """A batch of unequal rows, padded on the left: numbers of words and, between them, of pictures.

    Args:
        apart: whether every frame of a video stands alone, with a word before it.
    """
    config, kind = model.config, pictures.kind
    place = _placeholder(config, family, kind)
    before, after = (_marker(config, end) for end in ("start", "end"))
    texts, used = [], [row[1::2] for row in rows]
    for row in rows:
        generator = torch.Generator().manual_seed(100 + sum(row))
        text: list[int] = []
        for which, part in enumerate(row):
            if which % 2:
                frames = pictures.frames if apart else 1
                one = [*before, *[place] * (pictures.tokens(part) // frames), *after]
                text += one + [TEXT.start, *one] * (frames - 1)
            else:
                text += torch.randint(TEXT.start, TEXT.stop, (part,), generator=generator).tolist()
        texts.append(text)
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    visual = ids == place
    inputs = {"input_ids": ids, "attention_mask": mask}
    types = visual.long() * int(not family.prefix) * (2 if kind == "video" else 1)
    taken = inspect.signature(base.forward).parameters
    inputs |= {name: types for name in TOKEN_TYPES if name in taken}
    if EXPERT_TYPES in taken:
        inputs[EXPERT_TYPES] = torch.isin(ids, torch.tensor([place, *before, *after])).long()
    if numbers := [number for row in used for number in row]:
        inputs |= pictures.arguments(numbers)
        if kind == "video" and "video_second_per_grid" in taken:
            inputs["video_second_per_grid"] = torch.ones(len(numbers))
    return Prompts(inputs, visual, int(family.prefix))


def _placeholder(config: Any, family: sl.Family, kind: str) -> int:
    own = family.image_token if kind == "image" else str(family.video_token)
    for name in (own, f"{kind}_token_index"):
        if isinstance(token := getattr(config, name, None), int) and token < VOCABULARY:
            return token
    raise sl.UnsupportedModel(
        f"{type(config).__name__} has no {own!r}; {kind}_token of the family is the config's attribute with the id of "
        f"the placeholder of {kind}s"
    )


def _marker(config: Any, end: str) -> list[int]:
    """What stands ahead of a picture, or behind it, where the config says so."""
    found = (getattr(config, f"{of}_{end}_token_id", None) for of in ("vision", "image"))
    return [token for token in found if isinstance(token, int) and token < VOCABULARY][:1]


def _noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
