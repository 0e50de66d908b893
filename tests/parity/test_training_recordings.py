"""PyramidDrop's own training step, recorded: loss, kept tokens, gradients."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_backbones import RECORDED, example, examples
from transformers import LlavaForConditionalGeneration

import seeless as sl

FOLDER = RECORDED / "llava15" / "pyramiddrop_train_a"
ABOUT = json.loads((FOLDER / "case.json").read_text())
EXPECTED = load_file(FOLDER / "expected.safetensors")


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("number", range(3))
def test_recorded(number, kernel, checkpointing):
    model = LlavaForConditionalGeneration.from_pretrained(
        RECORDED / "llava15" / "model", dtype=torch.float32, attn_implementation={"text_config": kernel}
    )
    model.train()
    model.model.vision_tower.requires_grad_(False)
    if checkpointing:
        newer = hasattr(model, "activation_checkpointing_enable")
        enable = model.activation_checkpointing_enable if newer else model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    want, pictures = example(EXPECTED, number), examples("llava15")
    pixels = torch.cat([pictures[i]["pixel_values"].float() for i in want["pixel_values_from"].tolist()])
    params = ABOUT["params"]
    strategy = sl.PyramidDrop(layer=params["layer_list"], keep=params["image_token_ratio_list"])
    with sl.apply(model, strategy) as run:
        output = model(
            input_ids=want["input_ids"].long(),
            attention_mask=want["attention_mask"].long(),
            labels=want["labels"].long(),
            pixel_values=pixels,
        )
        output.loss.backward()
    assert abs(output.loss.item() - want["loss"].item()) < 1e-5
    assert abs(output.loss.item() - want["unpruned_loss"].item()) > 1e-4
    for stage, report in enumerate(run.report.stages):
        kept = torch.stack(report.kept)
        assert torch.equal(kept, want[f"keep_indices.stage{stage}"].long())
        scores = want[f"scores.stage{stage}"]
        assert (torch.stack(report.scores) - scores).abs().max() <= 1e-4 * scores.max()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    for name, norm in ABOUT["examples"][number]["grad_norms"].items():
        assert abs(norms[name] - norm) <= 1e-4 * max(norm, 1e-3), name
    for key in [key for key in want if key.startswith("grad.")]:
        gradient = dict(model.named_parameters())[key.removeprefix("grad.")].grad
        assert (gradient - want[key]).abs().max() <= 1e-4 * want[key].abs().max(), key
