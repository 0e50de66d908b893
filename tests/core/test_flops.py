"""Operations of tower, projector, decoder and head of every family, as torch counts them in the model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import seeless as sl
from tinies import LAYERS, TINIES, make_inputs

CASES = [(tiny, kind) for tiny in TINIES for kind in tiny.kinds]


def counted(model, inputs):
    """By module, in the order of the names."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs, logits_to_keep=1)
    name = f"{type(model).__name__}."
    return {key.removeprefix(name): sum(kinds.values()) for key, kinds in counter.get_flop_counts().items()}


def parts_of(model, own, kind, flops):
    """(tower, projector, decoder, head); what reads layers of the tower for the decoder belongs to the projector."""
    decoder, tower, between = "language_model", "vision_tower", ["multi_modal_projector"]
    if own.name.startswith("qwen"):  # a list of modules is never called itself
        between = [name for name, _ in model.model.named_modules() if name.startswith("visual.deepstack_merger_list.")]
        tower, between = "visual", ["visual.merger", *(name for name in between if name.count(".") == 2)]
    elif own.name in ("smolvlm", "idefics3"):
        decoder, tower, between = "text_model", "vision_model", ["connector"]
    elif own.name == "video_llava":
        tower = f"{kind}_tower"
    projector = sum(flops[f"model.{name}"] for name in between)
    layers = sum(flops[f"model.{decoder}.layers.{i}"] for i in range(LAYERS))
    return flops[f"model.{tower}"] - projector * (tower == "visual"), projector, layers, flops["lm_head"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_flops_are_what_torch_counts(case, tiny):
    own, kind = case
    model = tiny(own, "eager")
    if "moe" in own.name:
        model.set_experts_implementation("eager")  # torch does not count inside the fused kernels
    # Pixtral embeds the padding up to the largest picture, which the report leaves out: two of one size.
    second = 5 if "pixtral" in own.name or own.name == "mistral3" else 2
    two = [[3, f"{kind}:1", 4, f"{kind}:{second}", 6]] if own.name != "gemma3" else [[3, "image:2", 4]]
    for rows in ([[5, f"{kind}:0", 9]] * 2, two):
        inputs = make_inputs(model, own, rows)
        with sl.apply(model, sl.Random(keep=[0.6, 0.3], layer=[0, 3])) as run:
            flops = counted(model, inputs)
        after, before = run.report.flops_after, run.report.flops_before
        want = parts_of(model, own, kind, flops)
        assert (after.tower, after.projector, after.decoder, after.lm_head) == pytest.approx(want, rel=0.01)
        assert after.total == pytest.approx(flops["Global"], rel=0.001)
        assert before.total == pytest.approx(counted(model, inputs)["Global"], rel=0.001)


@pytest.mark.parametrize("name", ["llava-pixtral", "qwen2_5_vl", "qwen3_vl"])
def test_rows_alone(name, tiny):
    """What a row would cost alone is what the report of its own forward says, tower and all."""
    own = next(each for each in TINIES if each.name == name)
    model, rows = tiny(own, "eager"), [[3, "image:1", 4, "image:2", 6], [5, "image:0", 9], [4, "image:3", 2]]
    with torch.no_grad(), sl.apply(model, sl.Random(keep=0.4)) as run:
        model(**make_inputs(model, own, rows))
        together = run.report.row_flops
        for row, found in zip(rows, together, strict=True):
            model(**make_inputs(model, own, [row]))
            assert run.report.row_flops == [found]
