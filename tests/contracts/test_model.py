"""What a handle does to a model: nothing that stays, nothing that shows, nothing that costs memory."""

import dataclasses
import inspect
import warnings
import weakref

import pytest
import torch
from matrix import EVERYTHING, STRATEGIES
from plan import FULL, covering, in_turns, variants
from test_training import CHECKPOINTING, set_checkpointing
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import seeless as sl
from oracle import MaskOracle, merges_of, turn_of
from seeless.patches import PatchStrategy
from tiny_models import BACKENDS, IMAGE, LAYERS, RAGGED, SOME, VARIANTS, make_inputs, row_grids

BOOKKEEPING = 32 * 1024  # bytes: places of tokens and the like, which the width of a model does not multiply
RECOMPUTES_HOOKS = "__call__" in vars(GradientCheckpointingLayer)  # as older releases of transformers do
some = pytest.mark.parametrize("variant", SOME, ids=str)
named = pytest.mark.parametrize("name", STRATEGIES)


def snapshot(model):
    """Everything about a model that a handle could change."""
    modules = {}
    for name, module in model.named_modules():
        own = {
            k: v
            for k, v in vars(module).items()
            if not k.startswith("_forward") and k not in ("_modules", "_parameters", "_buffers")
        }
        hooks = {k: dict(getattr(module, k)) for k in vars(module) if k.startswith("_forward")}
        modules[name] = (type(module), own, {k: list(v.values()) for k, v in hooks.items()})
    globals_ = dict(ALL_ATTENTION_FUNCTIONS.items()), dict(ALL_MASK_ATTENTION_FUNCTIONS.items())
    return modules, globals_


@variants()
@torch.no_grad()
def test_remove_undoes_everything(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    before_logits = model(**inputs).logits
    model(**inputs, output_hidden_states=True)  # transformers installs hooks of its own on first use
    before = snapshot(model)
    with sl.apply(model, STRATEGIES[name]):
        model.generate(**inputs, max_new_tokens=2)
    assert snapshot(model) == before
    assert torch.equal(model(**inputs).logits, before_logits)

    class Trouble(Exception):
        pass

    def fail(*args):
        raise Trouble

    handle = model.model.language_model.layers[LAYERS - 1].register_forward_pre_hook(fail)
    with pytest.raises(Trouble), sl.apply(model, STRATEGIES[name]):
        model(**inputs)
    handle.remove()
    assert snapshot(model) == before
    assert torch.equal(model(**inputs).logits, before_logits)


@some
@named
@torch.no_grad()
def test_a_failed_forward_leaves_the_handle_working(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, STRATEGIES[name]):
        want = model(**inputs).logits
        handle = model.model.language_model.layers[3].register_forward_pre_hook(lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(**inputs)
        handle.remove()
        assert torch.equal(model(**inputs).logits, want)


@variants(turn=1)
@torch.no_grad()
def test_nobody_notices(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    modules = (model, model.model, model.model.language_model)
    signatures = [(inspect.signature(m.forward), m.forward.__name__) for m in modules]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sl.apply(model, STRATEGIES[name]):
            assert [(inspect.signature(m.forward), m.forward.__name__) for m in modules] == signatures
            out = model(**inputs, output_hidden_states=True)
            model.generate(**inputs, max_new_tokens=2)
    length = inputs["input_ids"].shape[1]
    assert out.logits.shape[1] == length
    assert [h.shape[1] for h in out.hidden_states] == [length] * (LAYERS + 1)


@some
@named
@torch.no_grad()
def test_hidden_states_are_the_oracles(tiny, variant, name):
    if name in ("pool", "vscan"):
        pytest.skip("the oracle's merged embeddings stand in for hidden_states[0] only at kept places")
    model, untouched = tiny(variant, "sdpa"), tiny(variant, "untouched")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, STRATEGIES[name]) as run:
        states = model(**inputs, output_hidden_states=True).hidden_states
    turn = turn_of(run.report, inputs["input_ids"], IMAGE)
    merges = merges_of(STRATEGIES[name], turn, None, model, untouched, inputs)
    with MaskOracle(untouched, [STRATEGIES[name]], [turn], inputs["attention_mask"], **merges):
        want = untouched(**inputs, output_hidden_states=True, use_cache=False).hidden_states
    text = (inputs["input_ids"] != IMAGE) & inputs["attention_mask"].bool()
    for have, expected in zip(states, want, strict=True):
        assert (have - expected)[text].abs().max() < 5e-5


class SquareWatcher(TorchDispatchMode):
    """Notes every tensor with two dimensions at least as long as the sequence, and the most bytes alive at once."""

    def __init__(self, length):
        super().__init__()
        self.length, self.squares, self.alive, self.peak, self.known = length, [], 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._see(func, tensor)
        return out

    def _see(self, func, tensor):
        if sum(n >= self.length for n in tensor.shape) >= 2 and tensor.numel() >= self.length**2:
            self.squares.append((str(func), tuple(tensor.shape)))
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known and storage.nbytes():
            self.known.add(key)
            size = storage.nbytes()
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key, size):
        self.known.discard(key)
        self.alive -= size


@variants(turn=2)
@torch.no_grad()
def test_no_attention_map_and_no_more_memory_than_the_untouched_model(tiny, variant, name):
    model = tiny(variant, "sdpa")
    rows = [[5, "image:0", 9, "image:1", "image:2", 8, "image:3", 200]]
    inputs = make_inputs(model, variant, rows)
    length = inputs["input_ids"].shape[1]
    model.generate(**inputs, max_new_tokens=1)
    # One long prompt: a map over it would stand out. The mask is left out, so that no mask is built either.
    inputs.pop("attention_mask")
    with SquareWatcher(length // 2) as plain:
        model(**inputs)
    with sl.apply(model, STRATEGIES[name]), SquareWatcher(length // 2) as reduced:
        model(**inputs)
    assert [s for s in reduced.squares if s not in plain.squares] == []
    assert reduced.peak <= plain.peak * 1.05 + BOOKKEEPING


@covering(name=STRATEGIES, variant=SOME, checkpointing=CHECKPOINTING, padding=["left", "right"])
def test_training_loss_and_gradients_are_the_oracles(variant, name, checkpointing, padding):
    model, untouched = variant.build("sdpa", torch.float64).train(), variant.build("eager", torch.float64)
    rows = [[5, "image:0", 9], [3, "image:1", 4, "image:2", 6]]
    inputs = make_inputs(model, variant, rows, padding)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    labels = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, 1:][inputs["input_ids"][:, :-1] == IMAGE] = -100  # predicted by the image's last place: see below
    labels[:, 1:][inputs["attention_mask"][:, :-1] == 0] = -100  # predicted by padding, which means nothing
    set_checkpointing(model, checkpointing)
    # A plain forward in training gives no position_ids, so positions count padding; the oracle must, too.
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)

    def exact_loss(logits):  # transformers' own loss rounds to float32
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    if checkpointing != "plain" and isinstance(STRATEGIES[name], PatchStrategy) and RECOMPUTES_HOOKS:
        with sl.apply(model, STRATEGIES[name]), pytest.raises(sl.UnsupportedModel, match="update transformers"):
            model(**inputs, labels=labels)
        return
    with sl.apply(model, STRATEGIES[name]) as run:
        out = model(**inputs, labels=labels, position_ids=positions)
        loss = exact_loss(out.logits)
        loss.backward()
    turn = turn_of(run.report, inputs["input_ids"], IMAGE)
    places = row_grids(untouched, variant, rows, inputs["input_ids"])
    merges = merges_of(STRATEGIES[name], turn, places, model, untouched, inputs)
    with MaskOracle(untouched, [STRATEGIES[name]], [turn], inputs["attention_mask"], **merges):
        want = exact_loss(untouched(**inputs, use_cache=False).logits)
        want.backward()
    assert abs(loss.item() - want.item()) < 1e-6  # norms and softmax are float32 inside, whatever the model is
    assert abs(out.loss.item() - want.item()) < 1e-5
    theirs = dict(untouched.named_parameters())
    reached = set()
    for parameter, mine in model.named_parameters():
        expected = theirs[parameter].grad
        if mine.grad is None or expected is None:
            assert mine.grad is expected is None, parameter
            continue
        assert (mine.grad - expected).abs().max() <= 1e-7 + 1e-5 * expected.abs().max(), parameter
        if expected.abs().max() > 0:
            reached.add(parameter.split(".")[1])
    assert {"vision_tower", "multi_modal_projector", "language_model"} <= reached


@some
@named
def test_a_label_right_after_an_image_is_predicted_from_the_last_kept_token(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [[5, "image:0", 9]])
    columns = (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[0, columns[-1] + 1] = 42
    with torch.no_grad(), sl.apply(model, STRATEGIES[name]) as run:
        out = model(**inputs, labels=labels)
    last = columns[run.report.stages[-1].kept[0][-1]]
    want = -out.logits[0, last].log_softmax(-1)[42]
    assert abs(out.loss.item() - want.item()) < 1e-5


@in_turns(variant=SOME, name=STRATEGIES)
@torch.no_grad()
def test_peft_wrapped(variant, name):
    from peft import LoraConfig, get_peft_model

    model = variant.build("sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"], init_lora_weights=False))
    wrapped.eval()
    with sl.apply(wrapped, STRATEGIES[name]) as run:
        lora = wrapped(**inputs).logits
        kept = run.report.stages[-1].kept
        wrapped.generate(**inputs, max_new_tokens=2)
    merged = wrapped.merge_and_unload()
    with sl.apply(merged, STRATEGIES[name]) as run:
        assert (merged(**inputs).logits - lora).abs().max() < 1e-4
        assert all(torch.equal(a, b) for a, b in zip(kept, run.report.stages[-1].kept, strict=True))


@pytest.mark.parametrize(
    ("variant", "name"), [(VARIANTS[1], "fastv"), pytest.param(VARIANTS[4], "vispruner", marks=FULL)], ids=str
)
@torch.no_grad()
def test_compiled(variant, name):
    """Correct, with the decoder run eagerly while the handle is active; compiled before or after `apply`."""
    model = dataclasses.replace(variant, layers=3).build("sdpa")  # every layer takes a second to trace
    inputs = make_inputs(model, variant, [RAGGED[0]])
    with sl.apply(model, STRATEGIES[name]):
        want = model(**inputs).logits
    plain = model(**inputs).logits
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5)
    with sl.apply(compiled, STRATEGIES[name]) as run:
        assert torch.allclose(compiled(**inputs).logits, want, atol=1e-5)
        assert len(run.reports) == 1
        model.generate(**inputs, max_new_tokens=2)
    assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5)
    with sl.apply(model, STRATEGIES[name]):
        later = torch.compile(model, backend="eager")
        assert torch.allclose(later(**inputs).logits, want, atol=1e-5)


def test_layers_compiled_one_by_one_are_refused():
    model = VARIANTS[1].build("sdpa")
    model.model.language_model.layers[2].compile(backend="eager")
    with pytest.raises(sl.UnsupportedModel, match="compile the whole model"):
        sl.apply(model, sl.FastV(keep=0.5))


@in_turns(variant=SOME, name=STRATEGIES)
@torch.no_grad()
def test_dispatched_over_devices(variant, name, tmp_path):
    """Weights on disk, brought in by accelerate's hooks layer by layer."""
    from accelerate import cpu_offload, disk_offload

    model = variant.build("sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, STRATEGIES[name]):
        want = model(**inputs).logits
        ids = model.generate(**inputs, max_new_tokens=3)
    for offload in (lambda m: disk_offload(m, tmp_path, "cpu"), lambda m: cpu_offload(m, "cpu")):
        moved = offload(variant.build("sdpa"))
        with sl.apply(moved, STRATEGIES[name]):
            assert torch.allclose(moved(**inputs).logits, want, atol=1e-5)
            if variant.family == "llava":  # transformers cannot generate with an offloaded image_newline either
                assert torch.equal(moved.generate(**inputs, max_new_tokens=3), ids)


@named
def test_round_trip(name):
    import json

    for strategy in (STRATEGIES[name], EVERYTHING[name]):
        assert sl.from_dict(json.loads(json.dumps(strategy.to_dict()))) == strategy
    assert BACKENDS


def test_a_forgotten_handle_keeps_no_model_alive():
    import gc

    model = VARIANTS[1].build("sdpa")
    sl.apply(model, sl.FastV(keep=0.5))
    gc.collect()
    with pytest.raises(sl.AlreadyApplied, match="already carries"):
        sl.apply(model, sl.FastV(keep=0.5))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
