"""The embedded model of the papers' shape: it loads, reads, and tells good choices of tokens from bad ones."""

import io
import runpy
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import seeless as sl
from seeless.eval import tasks_path
from seeless.reader import KINDS, load_reader, reader_path

QUESTIONS = 33  # three of every kind
TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def reader():
    return load_reader()


@pytest.fixture(scope="module")
def asked(reader):
    """Batches of questions, and the right answers as token numbers."""
    _, processor = reader
    records = pq.read_table(tasks_path() / "drawings.parquet").to_pylist()
    records = [row for kind in KINDS for row in [r for r in records if r["kind"] == kind][: QUESTIONS // len(KINDS)]]
    batches = []
    for start in range(0, QUESTIONS, 16):
        part = records[start : start + 16]
        images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in part]
        turns = [[{"type": "image"}, {"type": "text", "text": row["question"]}] for row in part]
        chats = [[{"role": "user", "content": turn}] for turn in turns]
        texts = processor.apply_chat_template(chats, add_generation_prompt=True)
        inputs = processor(images=images, text=texts, padding=True, add_special_tokens=False, return_tensors="pt")
        right = processor.tokenizer.convert_tokens_to_ids([row["answer"] for row in part])
        batches.append((inputs, torch.tensor(right)))
    return batches


@torch.no_grad()
def accuracy(model, asked) -> float:
    told = [model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1) == right for inputs, right in asked]
    return torch.cat(told).float().mean().item()


def reduced(model, strategy, asked) -> float:
    with sl.apply(model, strategy):
        return accuracy(model, asked)


def test_it_has_the_papers_shape(reader):
    model, processor = reader
    text, vision = model.config.text_config, model.config.vision_config
    assert (vision.image_size // vision.patch_size) ** 2 == model.config.image_seq_length == 576
    assert text.num_hidden_layers >= 8 and processor.num_additional_image_tokens == 1
    assert sum(file.stat().st_size for file in reader_path().iterdir()) < 20e6
    assert model.dtype == torch.float32 and not model.training


def test_it_reads_and_tells_good_from_bad(reader, asked):
    """With all tokens it is right; at half of its depth the least attended 11 % are far worse than the most."""
    model, _ = reader
    worst = partial(runpy.run_path(str(TRAINING / "baselines.py"))["Worst"], layer=4, keep=64)
    full, good, bad = accuracy(model, asked), *(reduced(model, s, asked) for s in (sl.FastV(layer=4, keep=64), worst()))
    assert full >= 0.85, full
    assert good >= full - 0.15 and bad <= good - 0.15, (full, good, bad)
