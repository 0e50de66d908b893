"""Checkpoints that are no plain folder of `transformers`: adapters of PEFT, and LLaVA's own format."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from saved_models import save_llava
from transformers import AutoProcessor, LlavaForConditionalGeneration

from seeless.named.checkpoints import load_model
from seeless.tiny import draw_scene

VERBS = [("run", "--model"), ("info",), ("eval", "--tasks", "scenes", "--dry-run", "--model"), ("bench", "--model")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`base`, and `adapter`, a LoRA of it whose weights are none of them zero."""
    folder = tmp_path_factory.mktemp("adapters")
    save_llava(folder / "base", layers=3)
    base = LlavaForConditionalGeneration.from_pretrained(folder / "base")
    torch.manual_seed(1)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|down_proj)"))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def inputs(folder):
    processor = AutoProcessor.from_pretrained(folder / "base")
    content = [{"type": "image"}, {"type": "text", "text": "how many digits are there?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(images=draw_scene(3).image, text=text, return_tensors="pt")


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def test_an_adapter_is_its_base_with_what_was_learnt(folder, inputs):
    base = LlavaForConditionalGeneration.from_pretrained(folder / "base").eval()
    before = logits_of(base, inputs)
    expected = {name: weight.clone() for name, weight in base.state_dict().items()}
    weights = load_file(folder / "adapter/adapter_model.safetensors")
    for name in {key.rpartition(".lora_")[0] for key in weights}:  # W + B A, scaled by alpha / r = 8 / 2
        place = name.removeprefix("base_model.model.") + ".weight"
        expected[place] += 4 * weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
    base.load_state_dict(expected)
    merged = logits_of(base, inputs)
    assert (merged - before).abs().max() > 0.1
    torch.testing.assert_close(
        logits_of(load_model(str(folder / "adapter")).model, inputs), merged, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_commands_take_adapters(seeless, folder, verb):
    more = {"bench": ("--quick", "--strategies", "fastv", "--rounds", 1), "run": ("--repeats", 0)}.get(verb[0], ())
    outcome = seeless(*verb, folder / "adapter", *more)
    assert outcome.code == 0, outcome


def test_training_starts_from_whole_models(seeless, folder, tmp_path):
    (tmp_path / "data.json").write_text("[]")
    outcome = seeless("train", "--model", folder / "adapter", "--data", "data.json")
    assert outcome.code == 6 and "merge it first" in outcome.err


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"base_model_name_or_path": None}, "has no base_model_name_or_path"),
        ({"base_model_name_or_path": "./nowhere"}, "./nowhere"),
        (None, "cannot be read"),
    ],
)
def test_adapters_of_nothing(seeless, folder, tmp_path, config, part):
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text("{" if config is None else json.dumps({**json.loads(file.read_text()), **config}))
    outcome = seeless("run", "--model", "adapter")
    assert outcome.code == 6 and part in outcome.err and outcome.err.count("\n") == 1


def test_an_adapter_of_another_model(seeless, folder, tmp_path):
    save_llava(tmp_path / "other", layers=4)
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "other"}))
    outcome = seeless("run", "--model", "adapter")
    assert outcome.code == 6 and "do not belong to 'other'" in outcome.err and outcome.err.count("\n") == 1


ORIGINAL = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "hidden_size": 5120,
    "num_hidden_layers": 40,
}


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", "llava_mistral"])
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_llava_s_own_format_is_named(seeless, tmp_path, verb, model_type):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.json").write_text(json.dumps({**ORIGINAL, "model_type": model_type}))
    outcome = seeless(*verb, "./own")
    assert (outcome.code, outcome.out) == (6, "") and outcome.err.count("\n") == 1
    for part in ("LLaVA's own code", "llava-hf/llava-1.5-13b-hf", "docs/coming-from.md"):
        assert part in outcome.err
