"""The tower's last layers do not run where nobody reads them, and nobody can tell."""

import pytest
import torch

import seeless as sl
from seeless.core.family import ModelView
from seeless.core.hooks import HookSet
from seeless.core.tail import skip_tail
from seeless.families import family_of
from tinies import TINIES, make_inputs

NAMES = {str(tiny): tiny for tiny in TINIES}
SKIPPING = ("llava-llama-mha", "llava_next-llama-mha", "vipllava", "llava_next_video", "video_llava")
LLAVA = NAMES["llava-llama-mha"]
ROWS = {"image": [[5, "image:0", 4], [2, "image:1", 3, "image:2", 2]], "video": [[5, "video:0", 4], [2, "video:1", 3]]}
EVERYTHING = sl.Uniform(keep=1.0)


@pytest.fixture
def llava():
    model = LLAVA.build("sdpa").eval()
    return model, make_inputs(model, LLAVA, ROWS["image"])


def layers_of(model, kind="image"):
    view = ModelView(model, family_of(model.config.model_type))
    return view.tower_layers(kind)


@pytest.fixture
def ran(monkeypatch):
    """Numbers of the tower layers that run, in turn."""
    found = []

    def watch(layers):
        cls, forward = type(layers[0]), type(layers[0]).forward
        number = {id(layer): index for index, layer in enumerate(layers)}

        def watched(self, *args, **kwargs):
            found.append(number[id(self)])
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(cls, "forward", watched)
        return found

    return watch


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in SKIPPING for kind in NAMES[name].kinds])
def test_the_last_layer_is_left_out_and_the_logits_stay(ran, name, kind):
    model = NAMES[name].build("sdpa").eval()
    inputs = make_inputs(model, NAMES[name], ROWS[kind])
    layers = layers_of(model, kind)
    found = ran(layers)
    with torch.no_grad():
        whole = model(**inputs).logits
        assert set(found) == set(range(len(layers)))
        found.clear()
        with sl.apply(model, EVERYTHING) as run:
            own = model(**inputs).logits
        assert set(found) == set(range(len(layers) - 1))
        found.clear()
        again = model(**inputs).logits
    assert torch.equal(own, whole) and torch.equal(again, whole)
    assert set(found) == set(range(len(layers)))
    before, after = run.report.flops_before, run.report.flops_after
    assert after.tower < before.tower and after.decoder == before.decoder
    assert all("forward" not in vars(part) for part in model.modules())


def test_all_layers_behind_the_one_that_is_asked_for_are_left_out(llava, ran):
    model, inputs = llava
    layers = layers_of(model)
    found, depth = ran(layers), len(layers)
    with torch.no_grad():
        for choice, last in ((-1, depth - 1), (-2, depth - 2), (-3, depth - 3), (1, 0)):
            model.config.vision_feature_layer = choice
            whole = model(**inputs).logits
            found.clear()
            with sl.apply(model, EVERYTHING):
                assert torch.equal(model(**inputs).logits, whole)
            assert max(found) == last


def test_a_strategy_that_reads_the_last_layer_has_it(llava, ran):
    model, inputs = llava
    layers = layers_of(model)
    found = ran(layers)
    with torch.no_grad(), sl.apply(model, sl.PruMerge(keep=0.5)):
        model(**inputs)
    assert max(found) == len(layers) - 1
    found.clear()
    with torch.no_grad(), sl.apply(model, sl.FasterVLM(keep=0.5)):
        model(**inputs)
    assert max(found) == len(layers) - 2


def test_who_asks_for_states_gets_all_of_them(llava):
    model, inputs = llava
    with torch.no_grad():
        own = model.model.get_image_features(inputs["pixel_values"])
        with sl.apply(model, EVERYTHING):
            under = model.model.get_image_features(inputs["pixel_values"])
            assert torch.equal(under.last_hidden_state, own.last_hidden_state)
            for name in ("output_hidden_states", "output_attentions"):
                output = model(**inputs, **{name: True})
                if (seen := getattr(output, "image_outputs", None)) is not None:
                    assert torch.equal(seen.last_hidden_state, own.last_hidden_state)
            seen = getattr(model(**inputs), "image_outputs", None)
            assert seen is None or seen.last_hidden_state is None  # nothing that would be another layer's


def generated(model, inputs, **given):
    return model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False, **given)


@pytest.mark.parametrize("given", [{}, {"num_beams": 2, "num_return_sequences": 2}], ids=["greedy", "beams"])
@torch.no_grad()
def test_generate_leaves_it_out_too(llava, ran, given):
    """It encodes pictures ahead of the model's forward."""
    model, inputs = llava
    layers = layers_of(model)
    found = ran(layers)
    whole = generated(model, inputs, **given)
    assert max(found) == len(layers) - 1
    found.clear()
    with sl.apply(model, EVERYTHING) as run:
        own = generated(model, inputs, **given)
        assert max(found) == len(layers) - 2
        model.model.get_image_features(inputs["pixel_values"])
        assert max(found) == len(layers) - 1
    assert torch.equal(own, whole)
    assert run.report.flops_after.tower < run.report.flops_before.tower


@torch.no_grad()
def test_who_has_generate_put_features_into_a_place_of_theirs_gets_all_of_them(llava):
    model, inputs = llava
    own = model.model.get_image_features(inputs["pixel_values"])
    place = {}
    with sl.apply(model, EVERYTHING):
        generated(model, inputs, mm_encoder_outputs=place)
    assert torch.equal(place["image"].last_hidden_state, own.last_hidden_state)


def hook(*args):
    return None


class Recording(torch.nn.Sequential):
    """Somebody's own, in place of a hook."""

    def forward(self, x):
        self.seen = super().forward(x)
        return self.seen


def test_a_layer_that_somebody_put_there_runs(llava):
    model, inputs = llava
    with torch.no_grad():
        whole = model(**inputs).logits
        layers = layers_of(model)
        layers[-1].mlp = Recording(layers[-1].mlp)
        with sl.apply(model, EVERYTHING):
            assert torch.equal(model(**inputs).logits, whole)
    assert layers[-1].mlp.seen.isfinite().all()


@pytest.mark.parametrize(
    "watch",
    [
        lambda tower, layer: layer.register_forward_hook(hook),
        lambda tower, layer: layer.self_attn.register_forward_pre_hook(hook),
        lambda tower, layer: layer.mlp.register_full_backward_hook(hook),
        lambda tower, layer: tower.register_forward_hook(hook),
        lambda tower, layer: tower.post_layernorm.register_forward_hook(hook),
        lambda tower, layer: setattr(
            layer, "forward", lambda *args, **kwargs: type(layer).forward(layer, *args, **kwargs)
        ),
        lambda tower, layer: setattr(layer, "mlp", Recording(layer.mlp)),
        lambda tower, layer: layer.compile(),
        lambda tower, layer: tower.compile(),
        lambda tower, layer: setattr(tower.config, "output_hidden_states", True),
        lambda tower, layer: (setattr(tower.config, "attention_dropout", 0.1), tower.train()),
        lambda tower, layer: (setattr(layer, "mlp", torch.nn.Sequential(layer.mlp, torch.nn.Dropout())), tower.train()),
    ],
)
def test_what_somebody_watches_runs(llava, watch):
    model, _ = llava
    view = ModelView(model, family_of("llava"))
    tower, hooks = view.tower("image"), HookSet()
    layers = view.tower_layers("image")
    last = len(layers) - 2
    assert skip_tail(view, "image", last + 1, {}, hooks) == 0
    assert skip_tail(view, "image", last, {}, hooks) == 1
    assert skip_tail(view, "image", last, {}, hooks) == 1  # its own seams are nobody else's
    hooks.remove()
    watch(tower, layers[-1])
    assert skip_tail(view, "image", last, {}, hooks) == 0


def test_a_hook_on_a_layer_that_is_read_changes_nothing(llava, ran):
    model, inputs = llava
    layers = layers_of(model)
    found = ran(layers)
    seen = []
    layers[-2].register_forward_hook(lambda *args: seen.append(1))
    with torch.no_grad(), sl.apply(model, EVERYTHING):
        model(**inputs)
    assert max(found) == len(layers) - 2 and seen


@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["plain", "checkpointed", "reentrant"])
def test_gradients_stay(llava, ran, checkpointing):
    model, inputs = llava
    model.train()
    if checkpointing is not None:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    labels = inputs["input_ids"].clone()

    def gradients():
        model.zero_grad()
        model(**inputs, labels=labels, use_cache=False).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    whole = gradients()
    layers = layers_of(model)
    found = ran(layers)
    with sl.apply(model, EVERYTHING):
        own = gradients()
    assert max(found) == len(layers) - 2
    assert own.keys() == whole.keys() and all(torch.equal(own[name], whole[name]) for name in own)
