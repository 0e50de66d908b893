"""Which tokens carry loss: those of the answers and of what closes them, on every kind of chat template."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import seeless as sl
from seeless.train import ChatFormat
from seeless.train.chat import IGNORED
from training_data import ANSWERS, FORGETFUL, PROCESSORS, byte_tokenizer, llava_processor

TURNS = (
    ("user", "<image>\nwhat is in the picture?"),
    ("assistant", ANSWERS[0]),
    ("user", "and <image> in <image>?"),
    ("assistant", ANSWERS[1]),
    ("user", "what?"),
    ("assistant", ANSWERS[2]),
)
CLOSING = {"embedded": "</s>", "qwen": "<|im_end|>"}


def encode(processor, chat, turns, images):
    text, spans = chat.render(turns)
    inputs = processor(
        images=[images] if images else None,
        text=[text],
        padding=True,
        add_special_tokens=chat.adds_special(text),
        return_tensors="pt",
    )
    return text, spans, inputs["input_ids"][0].tolist()


@pytest.mark.parametrize("name", PROCESSORS)
def test_answers_and_their_closing_token(name):
    processor = PROCESSORS[name]()
    chat, decode = ChatFormat(processor), processor.tokenizer.decode
    images = [Image.new("RGB", size) for size in ((60, 90), (90, 60), (200, 100))]
    text, spans, ids = encode(processor, chat, TURNS, images)
    labels = chat.labels(text, spans, ids, 3)
    assert len(labels) == len(ids)
    assert all(label in (IGNORED, token) for label, token in zip(labels, ids, strict=True))
    runs, last = [], None
    for place, label in enumerate(labels):
        if label != IGNORED:
            if last != place - 1:
                runs.append([])
            runs[-1].append(label)
            last = place
    closing = CLOSING.get(name, "</s>")
    if name == "embedded":  # its vocabulary has none of these words but one
        assert [len(run) for run in runs] == [len(text.split()) + 1 for role, text in TURNS if role == "assistant"]
        assert all(run[-1] == processor.tokenizer.eos_token_id for run in runs)
    else:
        assert [decode(run).strip() for run in runs] == [answer + closing for answer in ANSWERS]


WORDS = st.sampled_from(["which", "digit", "is", "red", "?", "7", "how", "many", "the"])
SENTENCE = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
TALK = st.lists(st.tuples(SENTENCE, SENTENCE, st.integers(0, 2)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(TALK)
def test_labels_against_tokens_put_together_by_hand(talk):
    """A slow reference: every piece of the embedded model's format tokenised alone, one after the other."""
    processor = llava_processor()
    chat, word = ChatFormat(processor), processor.tokenizer.convert_tokens_to_ids

    def split(text):
        return [word(piece) for piece in text.split()]

    turns, wanted, labels = [], [word("<s>")], [IGNORED]
    for question, answer, pictures in talk:
        turns += [("user", "<image>\n" * pictures + question), ("assistant", answer)]
        asked = [word("user"), word(":")]
        for _ in range(pictures):
            asked += [processor.image_token_id] * 144 + [word("\n")]
        asked += [*split(question), word("assistant"), word(":")]
        said = [*split(answer), word("</s>")]
        wanted, labels = wanted + asked + said, labels + [IGNORED] * len(asked) + said
    images = [Image.new("RGB", (96, 96))] * sum(pictures for _, _, pictures in talk)
    text, spans, ids = encode(processor, chat, tuple(turns), images)
    assert ids == wanted
    assert chat.labels(text, spans, ids, len(images)) == labels


def test_generation_blocks_and_prefixes_agree():
    talk = (("user", "what?"), ("assistant", "a red seven"), ("user", "and?"), ("assistant", "nothing"))
    found = []
    for name in ("vicuna", "vicuna with blocks"):
        processor = PROCESSORS[name]()
        chat = ChatFormat(processor)
        text, spans, ids = encode(processor, chat, talk, [])
        found.append([text[start:end].strip() for start, end in spans])
        assert sum(label != IGNORED for label in chat.labels(text, spans, ids, 0)) > 4
    assert found[0] == found[1] == ["a red seven</s>", "nothing</s>"]


def test_a_template_that_rewrites_earlier_turns_is_refused():
    chat = ChatFormat(llava_processor(FORGETFUL))
    with pytest.raises(sl.UnsupportedModel, match=r"turn 2.*generation"):
        chat.render(TURNS)


def test_a_processor_that_rewrites_text_is_refused():
    chat = ChatFormat(llava_processor())
    text, spans = chat.render((("user", "which digit is red?"), ("assistant", "7")))
    ids = chat.tokenizer(text)["input_ids"]
    chat.labels(text, spans, ids, 0)
    for wrong in (ids[:-1], [*ids[:3], 9, *ids[3:]]):
        with pytest.raises(sl.UnsupportedModel, match="LlavaProcessor changes more"):
            chat.labels(text, spans, wrong, 0)
    with pytest.raises(sl.UnsupportedModel, match="LlavaProcessor changes more"):
        chat.labels(text, spans, [*ids[:-1], 9, ids[-1]], 1)


def test_no_template_and_no_offsets():
    processor = llava_processor()
    processor.chat_template = None
    with pytest.raises(sl.UnsupportedModel, match="no chat template"):
        ChatFormat(processor)
    processor = llava_processor()
    processor.tokenizer = type("Slow", (), {"is_fast": False})()
    with pytest.raises(sl.UnsupportedModel, match="slow tokenizer"):
        ChatFormat(processor)


def test_the_prompt_is_what_generation_gets():
    processor = PROCESSORS["vicuna"]()
    chat = ChatFormat(processor)
    full, spans = chat.render((("user", "what?"), ("assistant", "nothing")))
    assert chat.prompt((("user", "what?"),)) == full[: spans[0][0]]
    assert torch.tensor(byte_tokenizer()(full)["input_ids"]).ndim == 1
