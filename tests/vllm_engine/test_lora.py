"""An adapter of the decoder, beside a strategy: as in transformers with the adapter's weights added."""

import json

import torch
from safetensors.torch import save_file

from both import answers_of, asked, differing, engine, ids
from requests_of import requests_of
from saved_for_vllm import LAYERS, save

RANK = 8


def adapter(folder):
    """A LoRA of all query projections, and what it adds to each."""
    generator = torch.Generator().manual_seed(0)
    weights, added = {}, {}
    for layer in range(LAYERS):
        down, up = (torch.randn(*shape, generator=generator) * 0.2 for shape in ((RANK, 128), (128, RANK)))
        name = f"language_model.model.layers.{layer}.self_attn.q_proj"
        weights |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
        added[layer] = up @ down
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    return added


def test_an_adapter_of_the_decoder_works_as_ever(tmp_path):
    from transformers import AutoModelForImageTextToText
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    folder, strategy = save("llava", tmp_path / "llava"), {"strategy": "vispruner", "keep": 16}
    added = adapter(tmp_path / "adapter")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    plain = answers_of(model, folder, strategy, requests_of("llava"))
    with torch.no_grad():
        for layer, more in added.items():
            model.model.language_model.layers[layer].self_attn.q_proj.weight += more
    truth = answers_of(model, folder, strategy, requests_of("llava"))
    assert sum(one[0] != other[0] for one, other in zip(plain, truth, strict=True)) > 3
    llm = engine(folder, strategy, enable_lora=True, max_lora_rank=RANK)
    given = [asked(request) for request in requests_of("llava")]
    options = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
    own = LoRARequest("own", 1, str(tmp_path / "adapter"))
    assert differing(ids(llm.generate(given, options, lora_request=own, use_tqdm=False)), truth) == []
    assert differing(ids(llm.generate(given, options, use_tqdm=False)), plain) == []
