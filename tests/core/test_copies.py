"""Copies of a model that carries a handle: independent, untouched, right; and other people's changes under a handle."""

import copy
import pickle
import warnings

import pytest
import torch
from saving import through_torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs

LLAVA, NEXT = VARIANTS[1], VARIANTS[4]
STRATEGIES = {"entry": sl.FasterVLM(keep=5), "layers": sl.PyramidDrop(), "tower": sl.ToMe(keep=0.5)}
OURS = ("forward", "get_image_features", "__reduce_ex__", "_replicate_for_data_parallel")
every = pytest.mark.parametrize("name", STRATEGIES)


WAYS = {
    "deepcopy": copy.deepcopy,
    "copy of a copy": lambda model: copy.deepcopy(copy.deepcopy(model)),
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "oldest pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "torch.save": through_torch,
    "moving average": lambda model: AveragedModel(model).module,
}


def unmarked(model):
    """Nothing of ours stands in any module."""
    return not [name for module in model.modules() for name in OURS if name in vars(module)]


@every
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_copies_of_a_model_under_a_handle(way, name):
    model, plain = LLAVA.build("sdpa"), LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    want = plain(**inputs).logits
    with sl.apply(plain, STRATEGIES[name]):
        reduced = plain(**inputs).logits
    with sl.apply(model, STRATEGIES[name]) as run:
        twin = WAYS[way](model)  # before the first forward: the hooks that transformers puts on then cannot be pickled
        assert unmarked(twin)
        assert torch.equal(twin(**inputs).logits, want) and len(run.reports) == 0
        with sl.apply(twin, STRATEGIES[name]) as own:
            assert torch.equal(twin(**inputs).logits, reduced) and len(own.reports) == 1 and len(run.reports) == 0
        for weight in twin.parameters():
            weight.zero_()
        assert torch.equal(model(**inputs).logits, reduced) and len(run.reports) == 1
    for weight in model.parameters():
        weight.fill_(2)
    assert not twin(**inputs).logits.any()


@every
@torch.no_grad()
def test_copies_made_inside_a_forward(name):
    """By a hook of somebody else's, while seams are on layers and tower."""
    model = NEXT.build("sdpa")
    inputs = make_inputs(model, NEXT, RAGGED)
    want, twins = model(**inputs).logits, []
    places = [model.model.language_model.layers[4], model.model.multi_modal_projector]
    with sl.apply(model, STRATEGIES[name]):
        for place in places:
            handle = place.register_forward_pre_hook(lambda *a: twins.append(copy.deepcopy(model)))
            model(**inputs)
            handle.remove()
    for twin in twins:
        for module in twin.modules():
            module._forward_pre_hooks.clear()
    for weight in model.parameters():
        weight.zero_()
    assert len(twins) == 2 and all(torch.equal(twin(**inputs).logits, want) for twin in twins)


@torch.no_grad()
def test_quantised_copies():
    from torch.ao.quantization import quantize_dynamic

    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    text = {"input_ids": inputs["input_ids"].clamp(max=50), "attention_mask": inputs["attention_mask"]}

    def quantised(module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all of torch.ao is deprecated
            return quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)

    want = quantised(model)(**inputs).logits
    states = quantised(model.model.language_model)(**text).last_hidden_state
    assert not torch.equal(want, model(**inputs).logits)
    with sl.apply(model, "fastv", keep=4) as run:
        assert torch.equal(quantised(model)(**inputs).logits, want)
        assert torch.equal(quantised(model.model.language_model)(**text).last_hidden_state, states)
        assert len(run.reports) == 0


@torch.no_grad()
def test_replicas_are_refused():
    """As `DataParallel` makes them on several devices, at every forward."""
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    with sl.apply(model, "fastv", keep=4):
        for module in (model, model.model, model.model.language_model):
            with pytest.raises(sl.UnsupportedModel, match="copies carry no handle; use DistributedDataParallel"):
                module._replicate_for_data_parallel()
        twin = copy.deepcopy(model)
    assert type(model._replicate_for_data_parallel()) is type(model)
    replica = twin._replicate_for_data_parallel()
    assert unmarked(replica)
    with sl.apply(nn.DataParallel(model), "fastv", keep=4) as run:  # one device: no replicas
        model(**inputs)
    assert len(run.reports) == 1


@torch.no_grad()
def test_what_leaves_the_module_where_it_is(tmp_path):
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    plain, names = model(**inputs).logits, list(model.state_dict())
    with sl.apply(model, "fastv", keep=4) as run:
        reduced = model(**inputs).logits
        assert list(model.state_dict()) == names
        model.save_pretrained(tmp_path)
        model.to(torch.float64).to(torch.float32).train().eval()
        model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})
        assert torch.equal(model(**inputs).logits, reduced)
        half = copy.deepcopy(model).half()
        assert half.lm_head.weight.dtype == torch.half and model.lm_head.weight.dtype == torch.float32
        assert len(run.reports) == 2
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    assert torch.equal(loaded(**inputs).logits, plain) and torch.equal(model(**inputs).logits, plain)


# What others put on or take off while a handle is active.


def dispatched(model):
    from accelerate import dispatch_model

    return dispatch_model(model, {"": "cpu"}, force_hooks=True)


@torch.no_grad()
def test_device_hooks_taken_off_under_a_handle():
    from accelerate.hooks import remove_hook_from_submodules

    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    plain = model(**inputs).logits
    moved = dispatched(model)
    with sl.apply(moved, "fastv", keep=4):
        reduced = moved(**inputs).logits
        assert not torch.equal(reduced, plain)
        remove_hook_from_submodules(moved)
        with pytest.raises(
            sl.UnsupportedModel, match=r"no longer goes through seeless.*remove the handle, and apply again"
        ):
            moved(**inputs)
    assert torch.equal(moved(**inputs).logits, plain)
    with sl.apply(moved, "fastv", keep=4):
        assert torch.equal(moved(**inputs).logits, reduced)
    assert torch.equal(moved(**inputs).logits, plain)


@pytest.mark.parametrize("first", ["handle", "hooks"])
@torch.no_grad()
def test_device_hooks_put_on_under_a_handle(first, tmp_path):
    from accelerate import cpu_offload
    from accelerate.hooks import remove_hook_from_submodules

    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    plain = model(**inputs).logits
    run = sl.apply(model, "fastv", keep=4)
    reduced = model(**inputs).logits
    moved = cpu_offload(model, "cpu")
    assert torch.equal(moved(**inputs).logits, reduced)
    if first == "handle":
        run.remove()
        assert torch.equal(moved(**inputs).logits, plain)
        remove_hook_from_submodules(moved)
    else:
        remove_hook_from_submodules(moved)
        assert torch.equal(moved(**inputs).logits, reduced)
        run.remove()
    assert torch.equal(model(**inputs).logits, plain)
    twin = copy.deepcopy(model)
    with sl.apply(model, "fastv", keep=4):
        assert torch.equal(model(**inputs).logits, reduced)
    for weight in model.parameters():
        weight.zero_()
    assert torch.equal(twin(**inputs).logits, plain)


REPLACED = (
    "language_model",
    "vision_tower",
    "multi_modal_projector",
    "language_model.layers",
    "language_model.rotary_emb",
)


@pytest.mark.parametrize("path", REPLACED)
@torch.no_grad()
def test_parts_replaced_under_a_handle(path):
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    plain = model(**inputs).logits
    owner, _, name = path.rpartition(".")
    owner = model.model.get_submodule(owner)
    with sl.apply(model, "fastv", keep=4):
        setattr(owner, name, copy.deepcopy(getattr(owner, name)))
        with pytest.raises(
            sl.UnsupportedModel, match=rf"^{path} is another module .* remove the handle, and apply again"
        ):
            model(**inputs)
    assert torch.equal(model(**inputs).logits, plain)
    with sl.apply(model, "fastv", keep=4) as run:
        model(**inputs)
    assert run.report.n_after


@torch.no_grad()
def test_a_replaced_base_or_decoder_is_noticed_without_pictures_too():
    model = LLAVA.build("sdpa")
    text = make_inputs(model, LLAVA, [[12]])
    plain, base, decoder = model(**text).logits, model.model, model.model.language_model
    with sl.apply(model, "fastv", keep=4):
        assert torch.equal(model(**text).logits, plain)
        model.model.language_model = copy.deepcopy(decoder)
        with pytest.raises(sl.UnsupportedModel, match="the forward of LlamaModel no longer goes through seeless"):
            model(**text)
        base.language_model = decoder
        model.model = copy.deepcopy(base)
        with pytest.raises(sl.UnsupportedModel, match="the forward of LlavaModel no longer goes through seeless"):
            model(**text)
        model.model = base
        assert torch.equal(model(**text).logits, plain)
        del vars(base)["forward"]
        for inputs in (text, make_inputs(model, LLAVA, RAGGED)):
            with pytest.raises(sl.UnsupportedModel, match="no longer goes through seeless"):
                model(**inputs)
    assert torch.equal(model(**text).logits, plain) and unmarked(model)


@torch.no_grad()
def test_a_layer_replaced_under_a_handle_is_used():
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    layers = model.model.language_model.layers
    with sl.apply(model, "fastv", keep=4):
        before = model(**inputs).logits
        layers[4] = copy.deepcopy(layers[4])
        assert torch.equal(model(**inputs).logits, before)
        layers[4].mlp.down_proj.weight.mul_(2)
        assert not torch.equal(model(**inputs).logits, before)
    assert unmarked(model)


@torch.no_grad()
def test_two_models_that_share_their_parts():
    """Two heads on one base carry one handle; two bases on one decoder carry their own."""
    model = LLAVA.build("sdpa")
    inputs = make_inputs(model, LLAVA, RAGGED)
    plain = model(**inputs).logits
    second, third = copy.copy(model), copy.deepcopy(model)
    second._modules = {**model._modules}
    third.model.language_model = model.model.language_model
    with sl.apply(model, "fastv", keep=4):
        reduced = model(**inputs).logits
        with pytest.raises(sl.AlreadyApplied):
            sl.apply(second, "fastv", keep=4)
        assert torch.equal(third(**inputs).logits, plain)
        run = sl.apply(third, "fastervlm", keep=4)
        other_reduced = third(**inputs).logits
        assert torch.equal(model(**inputs).logits, reduced)
    assert torch.equal(third(**inputs).logits, other_reduced)
    assert torch.equal(model(**inputs).logits, plain)
    run.remove()
    assert torch.equal(third(**inputs).logits, plain) and unmarked(model) and unmarked(third)
