"""The plug-in for lmms-eval in this process: answers, likelihoods, both interfaces, batches, caches, measures."""

import pytest
import torch
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_runs import run_here
from lmms_tasks import CHOICES, documents, write_tasks, write_video
from saved_models import save_llava_next

import seeless as sl
from seeless import models
from seeless.core.host import CACHE
from seeless.integrations.lmms_eval import CLASSES
from seeless.integrations.lmms_eval.model import SeelessLM, SeelessLMChat
from seeless.integrations.lmms_eval.vtr import LlavaVTR
from seeless.tiny import load_tiny
from seeless.vtr import VTRConfig

WRITTEN, CHOSEN = "small_written", "small_chosen"
STRATEGIES = {"none": None, "fastv": sl.FastV(keep=0.25), "guest": VTRConfig(strategy="priortr", keep_tokens=40)}
named = pytest.mark.parametrize("name", STRATEGIES)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def tiny_model():
    return load_tiny()


@pytest.fixture(scope="module")
def runs(tasks, tiny_model):
    """Batch 1 over both tasks: strategy -> (run, its model)."""
    found = {}
    for name, strategy in STRATEGIES.items():
        lm = SeelessLM.around(*tiny_model, strategy, keep_first_token=True)
        found[name] = run_here(lm, tasks, [WRITTEN, CHOSEN]), lm
    return found


def losses(run) -> torch.Tensor:
    return torch.tensor([[loss for loss, _ in choices] for choices in run.answers[CHOSEN].values()])


def by_request(lm) -> dict:
    return {(m.task, m.doc_id, m.choice): m for m in lm.measures}


def prompt(processor, doc) -> dict:
    """A document as the model's inputs, made by hand."""
    from io import BytesIO

    from PIL import Image

    images = [Image.open(BytesIO(data)).convert("RGB") for data in doc["pictures"]]
    pieces, content = doc["question"].split("<image>"), []
    if len(pieces) - 1 == len(images) and images:
        for number, piece in enumerate(pieces):
            content += [{"type": "image"}] * bool(number) + [{"type": "text", "text": piece.strip()}] * bool(
                piece.strip()
            )
    else:
        content = [{"type": "image"}] * len(images) + [{"type": "text", "text": doc["question"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(images=images or None, text=text, add_special_tokens=False, return_tensors="pt")


def with_answer(processor, inputs, answer: str) -> tuple[torch.Tensor, int]:
    """Ids of prompt and answer, and how many are the answer's."""
    ids = processor.tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return torch.cat([inputs["input_ids"], ids], 1), ids.shape[1]


def test_untouched_is_the_plain_model(runs, tiny_model):
    """Written answers are those of `generate`, losses those of one forward over prompt and answer."""
    model, processor = tiny_model
    run, lm = runs["none"]
    measures = by_request(lm)
    for number, doc in enumerate(documents()):
        inputs = prompt(processor, doc)
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        written = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()
        assert run.answers[WRITTEN][number] == [written]
        for choice, text in enumerate(CHOICES):
            whole, length = with_answer(processor, inputs, " " + text)
            with torch.no_grad():
                logits = model(**{**inputs, "input_ids": whole, "attention_mask": torch.ones_like(whole)}).logits[0]
            logs = logits[-length - 1 : -1].log_softmax(-1)
            loss, greedy = run.answers[CHOSEN][number][choice]
            assert loss == pytest.approx(-float(logs.gather(1, whole[0, -length:, None]).sum()), abs=1e-3)
            assert greedy == bool((logs.argmax(-1) == whole[0, -length:]).all())
            first = measures[CHOSEN, number, choice].first_token
            torch.testing.assert_close(first, logs[0], atol=1e-4, rtol=1e-4)
        visual = 144 * len(doc["pictures"])
        own = measures[WRITTEN, number, None]
        assert (own.visual_before, own.visual_average) == (visual, visual)
        assert own.input_tokens == inputs["input_ids"].shape[1]
        assert own.flops == own.flops_untouched > 0


@pytest.mark.parametrize("name", ["fastv", "guest"])
def test_reduced_is_the_applied_model(runs, tiny_model, name):
    """Losses with a strategy: prefill under the handle, then the answer's tokens after its cache."""
    model, processor = tiny_model
    run, lm = runs[name]
    measures = by_request(lm)
    for number, doc in enumerate(documents()):
        inputs = prompt(processor, doc)
        with sl.apply(model, STRATEGIES[name]) as handle, torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
            written = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
            assert run.answers[WRITTEN][number] == [written.strip()]
            for choice, text in enumerate(CHOICES):
                whole, length = with_answer(processor, inputs, " " + text)
                start = model(**inputs, use_cache=True)
                after = model(
                    input_ids=whole[:, -length:],
                    attention_mask=torch.ones_like(whole),
                    **{CACHE: start[CACHE]},
                )
                logs = torch.cat([start.logits[0, -1:], after.logits[0, :-1]]).log_softmax(-1)
                loss, _ = run.answers[CHOSEN][number][choice]
                assert loss == pytest.approx(-float(logs.gather(1, whole[0, -length:, None]).sum()), abs=1e-3)
        own = measures[WRITTEN, number, None]
        if doc["pictures"]:
            report = handle.report
            assert (own.visual_before, own.visual_average) == (report.n_before[0], report.average_tokens)
            assert (own.flops_untouched, own.flops) == (report.flops_before.total, report.flops_after.total)
            assert own.input_tokens == round(report.text[0] + report.average_tokens)
            assert own.flops < own.flops_untouched
        else:
            assert own.flops == models.text_flops(model, inputs["input_ids"].shape[1])
        assert own.prefill_seconds > 0 and own.output_tokens >= 1


@named
def test_batches_and_interfaces_agree(runs, tasks, tiny_model, name):
    run, lm = runs[name]
    three = SeelessLM.around(*tiny_model, STRATEGIES[name], batch_size=3)
    batched = run_here(three, tasks, [WRITTEN, CHOSEN])
    assert batched.answers[WRITTEN] == run.answers[WRITTEN]
    torch.testing.assert_close(losses(batched), losses(run), atol=1e-3, rtol=1e-4)
    one, other = by_request(lm), by_request(three)
    assert one.keys() == other.keys() and len(one) == len(lm.measures) == 7 + 7 * len(CHOICES)
    for key in one:
        for figure in ("visual_before", "visual_average", "input_tokens", "flops", "flops_untouched", "output_tokens"):
            assert getattr(one[key], figure) == getattr(other[key], figure), (key, figure)
    chat = run_here(SeelessLMChat.around(*tiny_model, STRATEGIES[name], batch_size=2), tasks, [WRITTEN])
    assert chat.answers[WRITTEN] == run.answers[WRITTEN]


def test_strategies_differ(runs):
    """Otherwise the tests above would show little."""
    assert not torch.allclose(losses(runs["none"][0]), losses(runs["fastv"][0]), atol=0.05)
    assert not torch.allclose(losses(runs["guest"][0]), losses(runs["fastv"][0]), atol=0.05)


def test_figures_are_in_the_results(runs):
    run, lm = runs["fastv"]
    through = run.results["throughput"]
    written = [m for m in lm.measures if m.task == WRITTEN]
    assert through["avg_measured_requests"] == len(lm.measures)
    assert through[f"avg_{WRITTEN}/visual_tokens"] == pytest.approx(sum(m.visual_average for m in written) / 7)
    assert through["avg_visual_tokens_share"] == pytest.approx((2 + 6 * 0.25) / 8)
    assert 0 < through["avg_flops_share"] < 1 and through["avg_prefill_seconds"] > 0
    assert through["total_gen_tokens"] == sum(m.output_tokens for m in written)
    samples = run.results["samples"][WRITTEN]
    counts = {m.doc_id: {"input_tokens": m.input_tokens, "output_tokens": m.output_tokens} for m in written}
    assert [sample["token_counts"] for sample in samples] == [[counts[sample["doc_id"]]] for sample in samples]
    assert run.results["efficiency"]["by_task"][WRITTEN]["total_input_tokens"] == sum(m.input_tokens for m in written)


def test_the_model_stays_usable(runs, tiny_model):
    model, processor = tiny_model
    inputs = prompt(processor, documents()[0])
    assert model.generate(**inputs, max_new_tokens=1).shape[1] == inputs["input_ids"].shape[1] + 1
    assert repr(runs["fastv"][1]) != repr(runs["guest"][1])  # what a cache would know them by


def test_generation_arguments_are_passed_on(tasks, tiny_model, caplog):
    """Three beams as `generate` gives them; sampling from the seed; `until` cuts."""
    model, processor = tiny_model
    lm = SeelessLM.around(*tiny_model, sl.FastV(keep=0.25), batch_size=3, keep_first_token=True)
    beams = run_here(lm, tasks, [WRITTEN], gen_kwargs="num_beams=3,max_new_tokens=5,min_new_tokens=5")
    for number, doc in enumerate(documents()):
        inputs = prompt(processor, doc)
        with sl.apply(model, sl.FastV(keep=0.25)):
            ids = model.generate(**inputs, num_beams=3, max_new_tokens=5, min_new_tokens=5, do_sample=False)
        text = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        assert beams.answers[WRITTEN][number] == [text.split("\n")[0].strip()]
    greedy = SeelessLM.around(*tiny_model, sl.FastV(keep=0.25))
    run_here(greedy, tasks, [WRITTEN], gen_kwargs="max_new_tokens=1")
    alone = {m.doc_id: m for m in greedy.measures}
    for measure in lm.measures:
        assert (measure.output_tokens, measure.visual_average) == (5, alone[measure.doc_id].visual_average)
    sampled = [
        run_here(
            SeelessLM.around(*tiny_model, None, batch_size=3),
            tasks,
            [WRITTEN],
            gen_kwargs="do_sample=True,temperature=9.0,top_p=0.9,max_new_tokens=4",
            torch_random_seed=seed,
        ).answers[WRITTEN]
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_videos_become_pictures(tmp_path, tiny_model):
    """A model without videos of its own gets the frames as pictures."""
    file = write_video(tmp_path / "scenes.mp4", size=96)
    doc = {"pictures": [], "question": "how many digits?", "answer": "3", "video": str(file)}
    folder = write_tasks(tmp_path / "tasks", [doc])
    lm = SeelessLM.around(*tiny_model, sl.FastV(keep=0.25), max_frames=4)
    run = run_here(lm, folder, [WRITTEN])
    assert lm.measures[0].visual_before == 4 * 144
    chat = SeelessLMChat.around(*tiny_model, sl.FastV(keep=0.25), max_frames=4)
    assert run_here(chat, folder, [WRITTEN]).answers == run.answers


def test_a_changed_budget_is_a_miss_in_the_cache(tmp_path, tasks):
    """The same arguments are answered from lmms-eval's cache of responses, another `keep` is not."""

    def run(task, keep):
        options = {"model_args": f"pretrained=tiny,strategy=fastv,keep={keep}", "use_cache": str(tmp_path / "cache")}
        return run_here("seeless", tasks, [task], force_simple=True, batch_size=3, **options)

    first, second, third = run(WRITTEN, 0.25), run(WRITTEN, 0.25), run(WRITTEN, 0.5)
    measured = [r.results["throughput"]["avg_measured_requests"] for r in (first, second, third)]
    assert measured == [7, 0, 7] and second.answers == first.answers
    with pytest.raises(sl.InputError, match="without --use_cache"):
        run(CHOSEN, 0.25)


def test_every_model_id_has_both_interfaces():
    for name in CLASSES:
        simple, chat = (MODEL_REGISTRY_V2.get_model_class(name, force_simple=forced) for forced in (True, False))
        assert simple.is_simple and not chat.is_simple and simple.door is chat.door
        assert issubclass(simple, SeelessLM) and issubclass(chat, SeelessLMChat)


def test_a_checkpoint_with_tiles(tmp_path, tasks):
    """LLaVA-NeXT from disk: pictures of several sizes and numbers of tiles, several pictures, none, in one batch."""
    folder = save_llava_next(tmp_path / "next")
    found = []
    for batch in (1, 4):
        lm = SeelessLM(batch, pretrained=str(folder), strategy="fastervlm", keep=0.25, plugin="", system_prompt="look")
        found.append((run_here(lm, tasks, [WRITTEN]), by_request(lm)))
    (one, first), (other, second) = found
    assert one.answers == other.answers
    assert len({measure.visual_before for measure in first.values()}) > 3
    assert {key: (m.visual_before, m.visual_average, m.flops) for key, m in first.items()} == {
        key: (m.visual_before, m.visual_average, m.flops) for key, m in second.items()
    }


def test_original_names_stand_for_their_conversions(capsys):
    """Without network there is nothing to load, but the error says what was looked for."""
    with pytest.raises(sl.SeelessError, match=r"llava-hf/llava-1\.5-7b-hf"):
        LlavaVTR(pretrained="liuhaotian/llava-v1.5-7b")
    assert "using its conversion llava-hf/llava-1.5-7b-hf" in capsys.readouterr().err
