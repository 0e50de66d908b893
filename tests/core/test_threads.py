"""Several threads share one model, as in a web service: the answers of one after the other."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import TextIteratorStreamer

import seeless as sl
from tiny_models import RAGGED, VARIANTS, make_inputs

LLAVA, NEXT = VARIANTS[1], VARIANTS[4]
WAIT = 600  # seconds, against hangs
STRATEGIES = {
    "entry": sl.FasterVLM(keep=5),
    "layers": sl.PyramidDrop(),
    "both": [sl.FasterVLM(keep=8), sl.FastV(keep=0.5, layer=3)],
    "trims": sl.PriorTR(keep=4),
    "tower": sl.ToMe(keep=0.5),
    "second prompt": sl.PriorTR2F(keep=4, layer=3, prior_mode="template", before=(3, 4), between=(5,), after=(6, 7)),
}
both = pytest.mark.parametrize("variant", (LLAVA, NEXT), ids=str)
every = pytest.mark.parametrize("name", STRATEGIES)


def together(*calls):
    """What the calls give, each in a thread of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(WAIT) for future in [pool.submit(call) for call in calls]]


class Meeting:
    """No forward passes a module before as many others stand there as the meeting has members."""

    def __init__(self, members, *modules):
        self.barrier = threading.Barrier(members, timeout=WAIT)
        self.handles = [module.register_forward_pre_hook(self._wait) for module in modules]

    def _wait(self, module, args):
        self.barrier.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def asked(model, variant, pixels):
    """A question of one row whose pictures are drawn anew for every number."""
    inputs = make_inputs(model, variant, [RAGGED[pixels % 2]])
    inputs["pixel_values"] = inputs["pixel_values"].roll(pixels, -1)
    return inputs


@both
@every
def test_forwards_that_meet_in_every_layer(variant, name):
    model = variant.build("sdpa")
    questions = [asked(model, variant, i) for i in range(3)]
    own = model.model
    places = [*own.language_model.layers, own.multi_modal_projector, own.language_model.norm]

    @torch.no_grad()
    def logits(i):
        return model(**questions[i]).logits

    with sl.apply(model, STRATEGIES[name]):
        want = [logits(i) for i in range(3)]
        places = places if name != "second prompt" else places[4:]  # the second prompt passes the first layers, too
        with Meeting(3, *places):
            found = together(*(lambda i=i: logits(i) for i in range(3)))
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))


@both
@every
def test_a_request_without_pictures_beside_one_with(variant, name):
    model = variant.build("sdpa")
    question, text = asked(model, variant, 0), make_inputs(model, variant, [[12]])

    @torch.no_grad()
    def logits(inputs):
        return model(**inputs).logits

    plain = logits(text)
    layers = model.model.language_model.layers
    with sl.apply(model, STRATEGIES[name]):
        want = logits(question)
        with Meeting(2, layers[3], layers[5]) if name != "second prompt" else Meeting(2, layers[5]):
            found, beside = together(lambda: logits(question), lambda: logits(text))
    assert torch.equal(found, want) and torch.equal(beside, plain)


@every
def test_generations(name):
    model = LLAVA.build("sdpa")
    questions = [asked(model, LLAVA, i) for i in range(4)]

    def answer(i):
        return model.generate(**questions[i], max_new_tokens=4, do_sample=False).tolist()

    async def all_at_once():
        return await asyncio.gather(*(asyncio.to_thread(answer, i % 4) for i in range(12)))

    with sl.apply(model, STRATEGIES[name]) as run:
        want = [answer(i) for i in range(4)]
        assert asyncio.run(all_at_once()) == want * 3
        assert len(run.reports) == 16


def test_a_streamed_answer():
    model = LLAVA.build("sdpa")
    question = asked(model, LLAVA, 1)

    class Letters:
        def decode(self, ids, **options):
            return " ".join(map(str, ids.tolist() if hasattr(ids, "tolist") else ids)) + " "

    with sl.apply(model, "fastv", keep=4):
        want = model.generate(**question, max_new_tokens=5, do_sample=False)[0, question["input_ids"].shape[1] :]
        streamer = TextIteratorStreamer(Letters(), skip_prompt=True, timeout=WAIT)
        options = {**question, "streamer": streamer, "max_new_tokens": 5, "do_sample": False}
        thread = threading.Thread(target=model.generate, kwargs=options)
        thread.start()
        text = "".join(streamer)
        thread.join(WAIT)
    assert [int(word) for word in text.split()] == want.tolist()


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not-reentrant"])
def test_a_backward_that_recomputes_layers_while_another_thread_prefills(reentrant):
    model = LLAVA.build("sdpa", torch.float64).train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    question, other = asked(model, LLAVA, 0), asked(model, LLAVA, 1)
    question["pixel_values"], other["pixel_values"] = (x["pixel_values"].double() for x in (question, other))
    layers = model.model.language_model.layers

    def gradients():
        return [layer.self_attn.k_proj.weight.grad.clone() for layer in layers]

    with sl.apply(model, "fastv", keep=4):
        model(**question).logits.pow(2).sum().backward()
        want = gradients()
        model.zero_grad()
        loss = model(**question).logits.pow(2).sum()
        inside, over = threading.Event(), threading.Event()

        @torch.no_grad()
        def prefill():
            def wait(module, args):
                inside.set()
                assert over.wait(WAIT)

            handle = model.model.language_model.norm.register_forward_pre_hook(wait)
            try:
                return model(**other).logits
            finally:
                handle.remove()

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(prefill)
            assert inside.wait(WAIT)  # its seams are on the layers now
            loss.backward()
            over.set()
            future.result(WAIT)
        assert all(torch.equal(a, b) for a, b in zip(gradients(), want, strict=True))


def test_a_handle_taken_off_while_another_thread_is_in_a_layer():
    """That forward ends as it began; the next one is the untouched model's."""
    model = LLAVA.build("sdpa")
    question = asked(model, LLAVA, 0)
    inside, over = threading.Event(), threading.Event()

    def wait(module, args):
        inside.set()
        assert over.wait(WAIT)

    @torch.no_grad()
    def logits():
        return model(**question).logits

    plain = logits()
    before = [set(vars(module)) for module in model.modules()]
    run = sl.apply(model, "pyramiddrop")
    want = logits()
    handle = model.model.language_model.layers[3].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(logits)
        assert inside.wait(WAIT)
        run.remove()
        over.set()
        assert torch.equal(future.result(WAIT), want)
    handle.remove()
    assert torch.equal(logits(), plain)
    assert [set(vars(module)) for module in model.modules()] == before
