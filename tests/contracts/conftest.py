"""The tiny models come from no checkpoint, so they have no tokenizer of their own: one of words stands in."""

import pytest
from matrix import CLIP
from transformers import AutoTokenizer

from seeless.core import question_answers

TOKENIZER = AutoTokenizer.from_pretrained(CLIP)


@pytest.fixture(autouse=True)
def _a_tokenizer(monkeypatch):
    monkeypatch.setattr(question_answers, "load_tokenizer", lambda *_: TOKENIZER)
