"""The words of the embedded model `reader`: its processor, and embeddings in which a patch can resemble a word.

Each word of each field of a mark (reader_sights.py) is a random vector. A word of the vocabulary is the vector of what
it names, the word MAP the sum of "M first", "A second" and "P third", so that the mean of what its patches carry
resembles it more than any other word. A number has a part that grows with it.
"""

import numpy as np
import torch
from transformers import LlavaProcessor

from reader_sights import APART, FIELDS, OFFSETS, SIZES
from seeless.reader.canvas import IMAGE_SIZE, PATCH_SIZE
from seeless.reader.drawings import draw_drawing
from seeless.reader.things import COLUMNS, PLACES, ROWS, THINGS
from seeless.reader.words import WORDS
from train_tower import MEAN, STD
from word_processor import build_processor

BESIDE = (
    "left",
    "right",
    "of",
    "above",
    "below",
)  # of a kind of question that was asked in training, see train_reader.py
SIZE = 0.5  # of an element of a vector
GROWTH = 3.0  # of the part that grows, from the middle number to the largest


def reader_processor() -> LlavaProcessor:
    """All words of questions and answers; a number is one word."""
    texts = [question.text for seed in range(400) for question in draw_drawing(seed, held_out=False).questions]
    answers = [
        *WORDS,
        *map(str, range(100)),
        *FIELDS["colour"],
        *FIELDS["letter"],
        *FIELDS["identity"][-6:],
        *PLACES,
        *BESIDE,
    ]
    return build_processor([*texts, *answers], IMAGE_SIZE, PATCH_SIZE, MEAN, STD, apart=r"\n|[?:,]")


def field_vectors(width: int, generator: torch.Generator) -> torch.Tensor:
    """A vector `[sum(SIZES), width]` for each word of each field; 0 for "none of them", but for the ground's."""
    vectors = SIZE * torch.randn(sum(SIZES), width, generator=generator)
    up = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)

    def at(field: str, word: str) -> int:
        return int(OFFSETS[list(FIELDS).index(field)]) + 1 + FIELDS[field].index(word)

    for field, start, size in zip(FIELDS, OFFSETS.tolist(), SIZES, strict=True):
        if field != "kind":
            vectors[start : start + (size if field in APART else 1)] = 0
    for digit in range(10):
        for name, weight in ((f"{digit}", 1.0), (f"{digit}@1", 1.0), (f"{digit}@2", 0.1)):
            vectors[at("identity", name)] += GROWTH * weight * (digit - 4.5) / 4.5 * up
    for value in FIELDS["value"]:
        vectors[at("value", value)] = vectors[at("identity", value)]
    for line in FIELDS["line"]:
        vectors[at("line", line)] = 0.6 * vectors[at("identity", line)] + 0.8 * vectors[at("line", line)]
    return vectors


def word_vectors(
    processor: LlavaProcessor, vectors: torch.Tensor, rows: int, generator: torch.Generator
) -> torch.Tensor:
    """An embedding `[rows, width]` for each word of the vocabulary; a random one for words that name nothing."""
    found = SIZE * torch.randn(rows, vectors.shape[1], generator=generator)

    def put(word: str, *parts: tuple[str, str]) -> None:
        index = [int(OFFSETS[list(FIELDS).index(field)]) + 1 + FIELDS[field].index(name) for field, name in parts]
        number = processor.tokenizer.convert_tokens_to_ids(word)
        assert number != processor.tokenizer.unk_token_id, word
        found[number] = vectors[index].sum(0) / len(parts) ** 0.5

    for field in ("colour", "letter", "rank"):
        for name in FIELDS[field]:
            put(name, (field, name))
    for name in FIELDS["identity"]:
        if "@" not in name:
            put(name, ("identity", name))
    for word in (*WORDS, *map(str, range(10, 100))):
        put(word, *(("identity", f"{glyph}@{place}") for place, glyph in enumerate(word, 1)))
    for row in ROWS:
        for column in COLUMNS:
            put(f"{row}-{column}", ("row", row), ("column", column))
    for kind in (*THINGS, "bar", "point"):
        put(kind, ("kind", kind))
        put(f"{kind}s", ("kind", kind))
    return found


def carried(sights: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """What patches `[..., fields]` carry to the decoder: the sum `[..., width]` of their words' vectors."""
    return vectors[sights + torch.from_numpy(np.asarray(OFFSETS))].sum(-2)
