"""A model that runs its tower on few pictures at once and gives what stays; its tower a table of features, no vLLM."""

from types import SimpleNamespace

import pytest
import torch

import seeless as sl
from fake_context import FakeSources
from seeless.context import Context
from seeless.decision import Keep
from seeless.integrations.vllm.layouts import Layouts
from seeless.integrations.vllm.serving import Serving

TOKENS, WIDTH, EXTRA = 16, 8, 3


class Stock(torch.nn.Module):
    """Gives the features of pictures that are named by numbers; behind what enters the decoder something for later."""

    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        self.language_model = torch.nn.Linear(1, 1)
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(20, TOKENS, WIDTH + EXTRA, generator=generator)
        self.runs = []

    def embed_multimodal(self, pixel_values):
        self.runs.append(len(pixel_values))
        return self.features[pixel_values]


class Model(Serving, Stock):
    layouts_of = Layouts

    def project(self, features):
        return features


def model(strategy, at_once=3 * TOKENS):
    vision = SimpleNamespace(image_size=32, patch_size=8, model_type="clip_vision_model")
    config = SimpleNamespace(model_type="llava", vision_config=vision, seeless=strategy)
    config.get_text_config = lambda: SimpleNamespace(hidden_size=WIDTH)
    return Model(
        vllm_config=SimpleNamespace(
            model_config=SimpleNamespace(hf_config=config),
            scheduler_config=SimpleNamespace(max_num_encoder_input_tokens=at_once),
        )
    )


def given(pictures, budgets):
    numbers = [[float(isinstance(keep, float)), float(keep)] for keep in budgets]
    return {"pixel_values": torch.tensor(pictures), "seeless_image": torch.tensor(numbers, dtype=torch.float64)}


def alone(strategy, features):
    """What one picture keeps: the strategy asked about it by itself."""
    count = strategy.count(0, TOKENS)
    index = torch.arange(TOKENS)[None]
    sources = FakeSources(of_patch=index, of_frame=torch.full((1, TOKENS), -1))
    sources.of_embeds = features[None, :, :WIDTH]
    ctx = Context(0, 0, count, index, TOKENS, (1, 4, 4), {}, sources)
    decision = strategy.reduce(ctx)
    whole = features.clone()
    if not isinstance(decision, Keep):
        whole = decision.values(features[None])[0]
    return whole[decision.mask[0]]


@pytest.mark.parametrize(
    "own", [sl.DivPrune(keep=5), sl.Random(keep=0.25, seed=2), sl.Uniform(keep=3), sl.Pool(keep=4)], ids=repr
)
def test_what_stays_of_a_picture_does_not_depend_on_the_others(own):
    budgets = [own.keep, 1, 0.5, own.keep, 16, 1.0, own.keep]
    served = model(own.to_dict())
    found = served.embed_multimodal(**given([4, 9, 4, 0, 7, 1, 19], budgets))
    for number, keep, kept in zip([4, 9, 4, 0, 7, 1, 19], budgets, found, strict=True):
        assert torch.equal(kept, alone(type(own)(**{**vars(own), "keep": keep}), served.features[number]))


def test_no_more_pictures_run_at_once_than_vllm_has_room_for():
    """By the tokens they have before any are dropped; one alone always."""
    for at_once, runs in ((3 * TOKENS, [3, 3, 1]), (TOKENS, [1] * 7), (1, [1] * 7), (1000, [7])):
        served = model({"strategy": "uniform", "keep": 1}, at_once)
        assert len(served.embed_multimodal(**given(range(7), [1] * 7))) == 7
        assert served.runs == runs


def test_a_strategy_that_breaks_its_promise_is_found_out(monkeypatch):
    monkeypatch.setattr(sl.Uniform, "promised", lambda self, count, frame, patch: count + 1)
    with pytest.raises(sl.StrategyError, match="another number of tokens"):
        model({"strategy": "uniform", "keep": 4}).embed_multimodal(**given([1], [4]))


def test_what_only_the_decoder_knows_cannot_be_asked(monkeypatch):
    monkeypatch.setattr(sl.DivPrune, "select", lambda self, ctx: ctx.attention())
    with pytest.raises(sl.InputError, match="attention is known once the decoder runs"):
        model({"strategy": "divprune", "keep": 4}).embed_multimodal(**given([1], [4]))


def test_tokens_that_do_not_fit_the_layout_are_refused():
    served = model({"strategy": "divprune", "keep": 4})
    served.features = served.features[:, :15]
    with pytest.raises(sl.InputError, match=r"gave \[15\] tokens for pictures that are laid out as \[16\]"):
        served.embed_multimodal(**given([1], [4]))
