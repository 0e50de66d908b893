"""What vLLM's processor of a model does differently, and the positions of three axes; against stubs, without vLLM."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

import seeless as sl
import stub_vllm
from seeless.integrations.vllm.batches import taken
from seeless.integrations.vllm.budgets import as_text
from seeless.integrations.vllm.layouts import GridLayouts, Layouts, frames, through
from seeless.integrations.vllm.mrope import ServingMRope, as_digits
from seeless.integrations.vllm.processing import reducing_info, reducing_processor
from seeless.integrations.vllm.reducing import Kept

IMAGE, VIDEO = 9, 8


@dataclass
class Inputs:
    hf_processor_mm_kwargs: dict = field(default_factory=dict)
    prompt: list = field(default_factory=list)
    mm_data_items: tuple = ("image",)


class Items(dict):
    def get_count(self, modality, strict):
        return len(self.get(modality, ()))


class Info:
    def __init__(self, strategy):
        vision = SimpleNamespace(image_size=32, patch_size=8, model_type="clip_vision_model")
        self.config = SimpleNamespace(model_type="llava", vision_config=vision, seeless=strategy, image_token_id=IMAGE)
        self.model_id = "tiny"

    def get_hf_config(self):
        return self.config

    def get_mm_max_tokens_per_item(self, seq_len, mm_counts):
        return None

    def get_max_image_tokens(self):
        return 16


class Processor:
    """As much of a processor of vLLM's as gives its options on to others."""

    def __init__(self, info):
        self.info, self.seen = info, []

    def apply(self, inputs, timing_ctx):
        return inputs

    def _get_mm_hashes(self, inputs):
        return json.dumps(inputs.hf_processor_mm_kwargs, sort_keys=True)

    def _get_hf_mm_inputs(self, mm_items, hf_kwargs):
        self.seen.append(dict(hf_kwargs))
        return SimpleNamespace(passthrough_data={})

    def _call_hf_processor(self, hf_data, hf_kwargs):
        self.seen.append(dict(hf_kwargs))
        return {}

    def _get_mm_fields_config(self, hf_inputs, hf_kwargs):
        self.seen.append(dict(hf_kwargs))
        return {"pixel_values": "batched"}

    def _get_prompt_updates(self, mm_items, hf_kwargs, out_mm_kwargs):
        self.seen.append(dict(hf_kwargs))
        return [stub_vllm.PromptReplacement("image", [IMAGE], lambda number: [IMAGE] * 16)]


@pytest.fixture
def processor(monkeypatch):
    stub_vllm.install(monkeypatch)

    def make(strategy, layouts=Layouts):
        return reducing_processor(Processor, layouts)(reducing_info(Info)(strategy))

    return make


DIVPRUNE = {"strategy": "divprune", "keep": 0.25}


def test_every_hash_has_strategy_budget_and_version(processor, monkeypatch):
    def hashed(strategy, **asked):
        return processor(strategy)._get_mm_hashes(Inputs(asked))

    seeds = [{"strategy": "random", "keep": 0.25, "seed": seed} for seed in (0, 1)]
    found = [hashed(DIVPRUNE), hashed({**DIVPRUNE, "keep": 4}), hashed(DIVPRUNE, fps=2), *map(hashed, seeds)]
    found += [hashed(DIVPRUNE, seeless={"keep": 2}), hashed({"strategy": "pool", "keep": 0.25})]
    monkeypatch.setattr(sl, "__version__", "999")
    found.append(hashed(DIVPRUNE))
    assert len(set(found)) == len(found)
    assert hashed(DIVPRUNE) == hashed(dict(DIVPRUNE)) == hashed(DIVPRUNE, seeless={"keep": 0.25})


def test_a_question_belongs_to_the_picture_of_its_prompt(processor, monkeypatch):
    said = {(5, 6): " which digit? ", (7,): "how many?", (): ""}
    monkeypatch.setattr("seeless.integrations.vllm.processing.read_question", lambda name, ids: said[tuple(ids)])
    own = processor({"strategy": "cdpruner", "keep": 4})
    found = [own.apply(Inputs({}, [1, IMAGE, 4, IMAGE, *ids]), None) for ids in said if ids]
    assert [each.hf_processor_mm_kwargs["seeless_question"] for each in found] == ["which digit?", "how many?"]
    assert own._get_mm_hashes(found[0]) != own._get_mm_hashes(found[1])
    data = own._get_hf_mm_inputs(Items(image=[1, 1]), found[0].hf_processor_mm_kwargs).passthrough_data
    assert [as_text(one) for one in data["seeless_image_question"]] == ["which digit?"] * 2
    assert "seeless_question" not in own.seen[-1]
    with pytest.raises(sl.InputError, match="needs a question behind the last picture"):
        own.apply(Inputs({}, [1, IMAGE]), None)
    told = processor({"strategy": "cdpruner", "keep": 4, "question": "which?"}).apply(Inputs({}, [IMAGE, 5, 6]), None)
    assert told.hf_processor_mm_kwargs == {}


def test_the_processor_of_transformers_sees_nothing_of_a_budget(processor):
    own, asked = processor(DIVPRUNE), {"fps": 2, "seeless": {"keep": 3}}
    own._get_hf_mm_inputs(Items(image=[1]), asked)
    own._call_hf_processor({}, asked)
    own._get_mm_fields_config({}, asked)
    own._get_prompt_updates(Items(image=[1]), asked, {})
    assert own.seen == [{"fps": 2}] * 4


def test_the_budget_travels_with_every_picture(processor):
    own = processor(DIVPRUNE)
    data = own._get_hf_mm_inputs(Items(image=[1, 1], video=[1]), {"seeless": {"keep": 3}}).passthrough_data
    assert data["seeless_image"].tolist() == [[0, 3], [0, 3]] and data["seeless_video"].tolist() == [[0, 3]]
    fields = own._get_mm_fields_config(data, {})
    assert fields["seeless_image"] == stub_vllm.FieldConfig("image", keep_on_cpu=True)
    assert own._get_hf_mm_inputs(Items(image=[1]), {}).passthrough_data["seeless_image"].tolist() == [[1, 0.25]]
    with pytest.raises(sl.InputError, match="encoded already"):
        own._get_hf_mm_inputs(Items(image=stub_vllm.EmbeddingItems.__new__(SizedEmbeddings)), {})


class SizedEmbeddings(stub_vllm.EmbeddingItems):
    def __len__(self):
        return 1


@pytest.mark.parametrize(("asked", "kept"), [({}, 4), ({"seeless": {"keep": 3}}, 3), ({"seeless": {"keep": 1.0}}, 16)])
def test_the_prompt_has_room_for_what_stays(processor, asked, kept):
    items = {"image": [SimpleNamespace(get_data=dict)]}
    (update,) = processor(DIVPRUNE)._get_prompt_updates(Items(image=[1]), asked, items)
    assert update.replacement(0).full == [IMAGE] * kept


def test_marks_between_placeholders_stay(processor):
    own = processor(DIVPRUNE)
    whole = stub_vllm.PromptUpdateDetails.select_token_id([1, *[IMAGE] * 8, 2, *[IMAGE] * 8, 3], IMAGE)
    stock = stub_vllm.PromptReplacement("image", [IMAGE], whole)
    cut = own._cut(own.info.strategy, stock, [SimpleNamespace(get_data=dict)], 0)
    assert cut.full == [1, *[IMAGE] * 4, 2, 3] and cut.is_embed(cut.full).sum() == 4


def test_a_layout_that_does_not_fit_is_refused(processor):
    own = processor(DIVPRUNE)
    stock = stub_vllm.PromptReplacement("image", [IMAGE], [IMAGE] * 15)
    with pytest.raises(sl.InputError, match="15 tokens, but its layout has 16"):
        own._cut(own.info.strategy, stock, [SimpleNamespace(get_data=dict)], 0)


def test_the_most_a_picture_can_have_is_all_its_tokens(processor):
    assert processor(DIVPRUNE).info.get_mm_max_tokens_per_item(100, {"image": 1}) == {"image": 16}


def test_items_are_taken_apart_whatever_holds_them():
    given = {
        "flat": torch.arange(6),
        "own": torch.tensor([[1], [2], [3]]),
        "list": ["a", "b", "c"],
        "all": torch.tensor(7),
    }
    found = taken(given, [2, 0], {"flat": [1, 3, 2]})
    assert found["flat"].tolist() == [4, 5, 0] and found["own"].tolist() == [[3], [1]]
    assert found["list"] == ["c", "a"] and found["all"] == 7


def test_pictures_are_numbered_through_a_run():
    first, second = through([frames(2, 2, 2, video=True), frames(1, 1, 3)])
    assert second.sides == ((2, 2), (2, 2), (1, 3)) and second.source.tolist() == [8, 9, 10]
    assert first.source.tolist() == list(range(8)) and first.frame.tolist() == [0] * 4 + [1] * 4


# Positions: transformers' own for the whole prompt, read at the tokens that stay, are the truth.


class Stock(torch.nn.Module):
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()


class Served(ServingMRope, Stock):
    def __init__(self, config):
        torch.nn.Module.__init__(self)
        self.config, self.layouts = config, GridLayouts(config)

    def offsets(self, modality, data):
        count, height, width = (int(n) for n in data[f"{modality}_grid_thw"])
        return torch.cartesian_prod(torch.arange(count), torch.arange(height // 2), torch.arange(width // 2))


@pytest.fixture(scope="module")
def qwen():
    text = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16, "tokens_per_second": 1}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=VIDEO)
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(config)


def prompt(grids):
    """Ids of a prompt with pictures of these grids, and where each begins."""
    ids, starts = [1, 2], []
    for number, (count, height, width) in enumerate(grids):
        token = VIDEO if count > 1 else IMAGE
        ids.append(3)
        starts.append(len(ids))
        ids += [token] * (count * height * width // 4) + [4, *[5] * number]
    return [*ids, 6, 7], starts


@pytest.mark.parametrize("chunk", [1, 3, 5, 100])
@pytest.mark.parametrize(
    "grids", [[(1, 4, 6)], [(1, 8, 4), (1, 4, 12)], [(2, 6, 4), (1, 4, 4), (2, 4, 8)]], ids=["one", "two", "videos"]
)
def test_kept_tokens_keep_their_positions_whatever_the_chunks(qwen, grids, chunk):
    ids, starts = prompt(grids)
    types = torch.tensor([[{IMAGE: 1, VIDEO: 2}.get(token, 0) for token in ids]])
    thw = {name: [grid for grid in grids if (grid[0] > 1) == video] for name, video in (("image", 0), ("video", 1))}
    given = {f"{name}_grid_thw": torch.tensor(own) for name, own in thw.items() if own}
    truth, delta = qwen.model.get_rope_index(torch.tensor([ids]), mm_token_type_ids=types, **given)
    generator = torch.Generator().manual_seed(0)
    model, stays, features, embeddings = Served(qwen.config), torch.ones(len(ids), dtype=torch.bool), [], []
    for start, grid in zip(starts, grids, strict=True):
        size = grid[0] * grid[1] * grid[2] // 4
        places = torch.randperm(size, generator=generator)[: size // 2].sort().values
        stays[start : start + size] = False
        stays[start + places] = True
        modality = "video" if grid[0] > 1 else "image"
        item = {f"{modality}_grid_thw": torch.tensor(grid)}
        told = model.told(modality, Kept(torch.randn(len(places), 16, dtype=torch.bfloat16), places), item)
        embeddings.append(told)
        offset = int(stays[:start].sum())
        place = SimpleNamespace(offset=offset)
        features.append(SimpleNamespace(modality=modality, mm_position=place, data=SimpleNamespace(get_data=item.copy)))
    left = [token for token, stay in zip(ids, stays.tolist(), strict=True) if stay]
    positions, ahead = model.get_mrope_input_positions(left, features[::-1])
    for _ in range(2):  # a request that was put off begins anew, with positions that are filled in already
        for first in range(0, len(left), chunk):
            pieces = []
            for feature, own in zip(features, embeddings, strict=True):
                low, high = (max(0, n - feature.mm_position.offset) for n in (first, first + chunk))
                if len(own[low:high]):
                    pieces.append(own[low:high])
            tokens, positions, found = model.recompute_mrope_positions(left, pieces, positions, first)
            assert [piece[:, :16].tolist() for piece in pieces] == [own.tolist() for own in tokens]
            assert found == ahead
    assert torch.equal(positions, truth[:, 0, stays])
    assert ahead == int(delta) + len(ids) - len(left)


def test_far_offsets_survive_half_precision():
    far = torch.tensor([[65535, 257, 0], [300, 4097, 255]])
    assert torch.equal(as_digits(far).to(torch.bfloat16).long(), as_digits(far))
