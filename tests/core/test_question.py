"""The question in the model's own tokens and in CLIP's space, against stock tokenizers, tables and CLIP models."""

import pytest
import torch
from tiny_clip import save_clip, save_tokenizer
from transformers import AutoTokenizer, CLIPModel

import seeless as sl
import tinies
from tinies import TINIES

NAMES = {str(tiny): tiny for tiny in TINIES}
TEXTS = ["what colour is the left digit ?", "how many are there ?"]
LONG = "how many are there ? " * 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A folder with nothing but a tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return str(folder)


class Asking(sl.EntryStrategy):
    tower = ("features",)
    clip: str | None = None
    text: str | None = None
    pieces: list[str] | None = None

    def score(self, ctx):
        text = ctx.question(self.text)
        pieces = self.pieces or [text]
        seen = {"question": text, "ids": ctx.token_ids(pieces), "embeds": ctx.token_embeds(pieces)}
        seen["clip"] = ctx.in_clip_space(self.clip)
        if seen["clip"]:
            seen |= {"patches": ctx.clip_patches(self.clip), "pooled": ctx.clip_text(self.clip, text)}
            seen |= {"words": ctx.clip_tokens(self.clip, text), "padded": ctx.clip_tokens(self.clip, text, True)}
        SEEN.append(seen)
        return ctx.visual[..., 0]


SEEN = []


def run(name, strategy, rows, tokenizer, monkeypatch, texts=()):
    """`texts` stand at the end of the rows, which have room for them."""
    SEEN.clear()
    model = NAMES[name].build("sdpa")
    given = tinies.make_inputs(model, NAMES[name], rows)
    cut = AutoTokenizer.from_pretrained(tokenizer) if tokenizer else None
    for row, text in enumerate(texts):
        ids = cut(text, add_special_tokens=False)["input_ids"]
        given["input_ids"][row, -20:] = torch.tensor([2] * (20 - len(ids)) + ids)  # </s> is left out of the question
    monkeypatch.setattr(model.config, "_name_or_path", tokenizer or "")
    with torch.no_grad(), sl.apply(model, strategy):
        model(**given)
    return model, given


@pytest.mark.parametrize("name", ["llava-llama-mha", "qwen2_vl", "paligemma"])
def test_the_question_of_every_row(name, named, clip, monkeypatch):
    """Rows that ask different things are asked apart; crops of one row, and equal questions, together."""
    rows = [["image:0", 3, "image:1", 20], ["image:1", 20], ["image:0", 20]]
    strategy = Asking(keep=0.5, clip=clip if name == "llava-llama-mha" else None)
    model, _ = run(name, strategy, rows, named, monkeypatch, [*TEXTS, TEXTS[0]])
    tokenizer, table = AutoTokenizer.from_pretrained(named), model.get_input_embeddings()
    units = {}
    for seen in SEEN:
        text = seen["question"]
        units[text] = units.get(text, 0) + len(seen["ids"])
        ids = tokenizer(seen["question"], add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert torch.equal(seen["ids"], ids.expand(len(seen["ids"]), -1))
        assert torch.equal(seen["embeds"], table(ids).expand(len(seen["ids"]), -1, -1))
    assert units == {TEXTS[0]: 3, TEXTS[1]: 1}


def test_pieces_are_cut_into_tokens_one_by_one(named, monkeypatch):
    strategy = Asking(keep=0.5, text="any", pieces=["left digit", "?"])
    run("qwen2_vl", strategy, [[3, "image:0", 4]], named, monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(named)
    want = [i for piece in ("left digit", "?") for i in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    assert SEEN[0]["ids"].tolist() == [want] and not SEEN[0]["clip"]


@pytest.mark.parametrize("text", [TEXTS[0], LONG], ids=["one segment", "several"])
@torch.no_grad()
def test_clips_common_space(clip, text, monkeypatch):
    strategy = Asking(keep=0.5, text=text, clip=clip)
    _, given = run("llava-llama-mha", strategy, [[3, "image:0", 4], [3, "image:1", 4]], clip, monkeypatch)
    stock, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    untouched = NAMES["llava-llama-mha"].build("eager")
    states = untouched.model.vision_tower(given["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    (seen,) = SEEN
    patches = stock.visual_projection(stock.vision_model.post_layernorm(states))
    assert torch.allclose(seen["patches"], patches, atol=1e-5)
    ids = tokenizer(text.strip())["input_ids"]
    pooled, words, padded = [], [], []
    for start in range(0, len(ids), 77):
        own = ids[start : start + 77]
        gap = [0] * (77 - len(own))
        whole = stock.text_model(torch.tensor([own + gap]), torch.tensor([[1] * len(own) + gap]))
        alone = stock.text_model(torch.tensor([own])).last_hidden_state[0]
        pooled.append(stock.text_projection(whole.pooler_output)[0])
        words.append(stock.text_projection(alone))
        padded.append(stock.text_projection(whole.last_hidden_state[0]))
    for name, parts in {"words": torch.cat(words), "padded": torch.cat(padded), "pooled": torch.stack(pooled)}.items():
        assert seen[name].shape == (2, *parts.shape)
        assert torch.allclose(seen[name][1], parts, atol=1e-5), name
    if text == TEXTS[0]:
        features = stock.get_text_features(**tokenizer(text, return_tensors="pt"))
        features = getattr(features, "pooler_output", features)
        assert torch.allclose(seen["pooled"][0], features, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "knobs", "error", "message"),
    [
        ("qwen2_vl", {}, sl.InputError, "the question cannot be read from the prompt.*give the text with question="),
        ("qwen2_vl", {"text": " "}, sl.InputError, "there is no question to compare the image with"),
        (
            "qwen2_vl",
            {"text": "left ?"},
            sl.InputError,
            "cannot be turned into tokens.*from a checkpoint",
        ),
    ],
)
def test_refused_without_a_tokenizer_or_a_question(name, knobs, error, message, monkeypatch):
    with pytest.raises(error, match=message):
        run(name, Asking(keep=0.5, **knobs), [[3, "image:0", 4]], None, monkeypatch)


@pytest.mark.parametrize(
    ("name", "clip", "message"),
    [("llava-llama-mha", None, "pass clip="), ("qwen2_vl", "any", "is no CLIP; leave it out")],
)
def test_clip_is_named_where_there_is_one(name, clip, message, named, monkeypatch):
    with pytest.raises(sl.UnsupportedModel, match=message):
        run(name, Asking(keep=0.5, text="left ?", clip=clip), [[3, "image:0", 4]], named, monkeypatch)


def test_patches_of_another_tower_have_no_place_in_clips_space(named, monkeypatch):
    class Wrong(Asking):
        def score(self, ctx):
            return ctx.clip_patches(None)[..., 0]

    with pytest.raises(sl.UnsupportedModel, match="have no place in CLIP's space"):
        run("qwen2_vl", Wrong(keep=0.5), [[3, "image:0", 4]], named, monkeypatch)
