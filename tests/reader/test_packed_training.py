"""Many questions in one pass are answered as each alone, by the model as transformers runs it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))


@pytest.fixture(scope="module")
def trained():
    import train_reader
    from seeless.reader import load_reader

    model, processor = load_reader(attn_implementation="eager")
    words = train_reader.Words(processor)
    return train_reader, model, words, train_reader.batch(np.random.default_rng(1), words, 2, train_reader.ALL)


def packed(trained, first, swapped):
    train_reader, model, words, data = trained
    with torch.no_grad():
        told, _ = train_reader.packed_of(model, words, data, torch.tensor(first), torch.tensor(swapped))
        return train_reader.answer(model.model.language_model, told)


def test_a_question_among_others_is_a_question_alone(trained):
    train_reader, model, words, data = trained
    hidden, looks = packed(trained, [0, 0], [False, False])
    for row, number in ((0, 3), (1, 7)):
        length = int(data["last"][row, number]) + 1
        image = [model.config.image_token_id] * train_reader.ALL
        ids = words("<s>user:") + image + data["ids"][row, number, :length].tolist()
        scaled = (data["pixels"][row : row + 1].permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.3
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([ids]), pixel_values=scaled, output_attentions=True)
            logits = model.lm_head(hidden[row, number, length - 1])
        torch.testing.assert_close(logits, alone.logits[0, -1], rtol=1e-4, atol=1e-4)
        for depth in (0, 3, 7):
            share = alone.attentions[depth][0].mean(0)[-1, 3 : 3 + train_reader.ALL]
            share = (share + 1e-9) / (share.sum() + 1e-9)
            torch.testing.assert_close(looks[depth][row, number].exp(), share, rtol=1e-3, atol=1e-6)


def test_who_never_sees_the_picture_answers_the_same_about_any(trained):
    """With no layer left to see it in, what is swapped in its place counts, and nothing else."""
    train_reader, model, words, data = trained
    depth = len(model.model.language_model.layers)
    blind, _ = packed(trained, [depth, depth], [False, False])
    other = {**data, "pixels": data["pixels"].flip(0)}
    again, _ = packed((train_reader, model, words, other), [depth, depth], [False, False])
    torch.testing.assert_close(blind, again)
    swapped, _ = packed(trained, [depth, depth], [True, True])
    theirs, _ = packed((train_reader, model, words, other), [0, 0], [False, False])
    torch.testing.assert_close(swapped, theirs, rtol=1e-4, atol=1e-4)
