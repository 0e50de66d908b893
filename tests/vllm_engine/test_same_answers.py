"""A real vLLM answers as transformers does with the same tokens kept: images, videos, budgets, chunks, caches."""

import gc

import pytest

from both import Request, differing, drift, engine, ids, reference, served
from requests_of import requests_of
from saved_for_vllm import save

SMALL = {"block_size": 32, "max_num_batched_tokens": 24, "max_num_seqs": 8}  # pieces shorter than a picture
LLAVA = [
    {"strategy": "vispruner", "keep": 16},
    {"strategy": "visionzip", "keep": 16},
    {"strategy": "pool", "keep": 0.25},
    {"strategy": "scope", "keep": 16},
]
VIDEO = [{"strategy": "evs", "keep": 0.25}, {"strategy": "vidcom2", "keep": 0.25}]
TIGHT = {**SMALL, "num_gpu_blocks_override": 7, "max_model_len": 128}  # requests put each other off
CASES = [
    *(("llava", strategy, {}) for strategy in LLAVA),
    ("llava", {"strategy": "prumerge", "keep": 16}, SMALL),
    ("llava", {"strategy": "divprune", "keep": 16}, {"max_num_batched_tokens": 64, "max_num_seqs": 8}),
    ("llava_siglip", {"strategy": "visionzip", "keep": 16}, {}),
    ("llava_next", {"strategy": "fastervlm", "keep": 16}, SMALL),
    ("llava_next", {"strategy": "divprune", "keep": 0.25}, {}),
    ("llava_next", {"strategy": "vispruner", "keep": 16}, SMALL),
    ("llava_next", {"strategy": "pool", "keep": 0.25}, {}),
    ("llava_onevision", {"strategy": "vispruner", "keep": 0.25}, {}),
    ("qwen2_5_vl", {"strategy": "vispruner", "keep": 0.25}, SMALL),
    *(("qwen2_5_vl", strategy, SMALL) for strategy in VIDEO),
    ("qwen3_vl", {"strategy": "prumerge", "keep": 0.25}, SMALL),
    ("qwen3_vl", {"strategy": "pool", "keep": 0.25}, {}),
    *(("qwen3_vl", strategy, SMALL) for strategy in VIDEO),
    ("qwen2_5_vl", {"strategy": "divprune", "keep": 0.25}, TIGHT),
    ("qwen2_5_vl", {"strategy": "cdpruner", "keep": 0.25}, {}),
    ("llava", {"strategy": "fastervlm", "keep": 16}, {"enforce_eager": False}),
    ("internvl", {"strategy": "visionzip", "keep": 8}, {}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def saved(kind):
        if kind not in made:
            made[kind] = save(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return saved


@pytest.fixture(autouse=True)
def _free():
    yield
    gc.collect()


@pytest.mark.parametrize(("kind", "strategy", "options"), CASES, ids=lambda x: x if isinstance(x, str) else str(x))
def test_answers_are_those_of_transformers(folder, kind, strategy, options):
    asked = requests_of(kind)
    llm = engine(folder(kind), strategy, **options)
    first, again = served(llm, asked, logprobs=5), served(llm, asked, logprobs=5)
    truth = reference(folder(kind), strategy, asked)
    assert differing(ids(first), truth) == [] and differing(ids(again), truth) == []
    assert max(drift(first, truth), drift(again, truth)) < 1e-3
    assert len({tuple(own) for own in ids(first)}) > len(asked) // 2  # the requests do tell each other apart
    if options == SMALL:
        assert sum(output.num_cached_tokens for output in again) > 0


def test_qwen3_5_begins_as_on_transformers(folder):
    """Its linear attention is computed in bfloat16 alone on CPUs, which only the first ids survive."""
    asked, strategy = requests_of("qwen3_5"), {"strategy": "vispruner", "keep": 0.25}
    answers = ids(served(engine(folder("qwen3_5"), strategy, dtype="bfloat16"), asked))
    truth = reference(folder("qwen3_5"), strategy, asked)
    assert [own[0] for own in answers] == [expected[0] for expected, _ in truth]


def test_prompts_are_as_long_as_the_budget_says(folder):
    llm = engine(folder("llava"), {"strategy": "fastervlm", "keep": 16})
    asked = [Request("see <image> which digit?", ((5, 140, 120),), keep=keep) for keep in (None, 5, 0.5, 1.0)]
    lengths = [len(output.prompt_token_ids) for output in served(llm, asked)]
    assert [length - lengths[1] for length in lengths] == [16 - 5, 0, 32 - 5, 64 - 5]


def test_another_choice_gives_another_answer(folder):
    """What is compared above tells strategies apart."""
    asked = [Request("see <image> which digit?", ((seed, 140, 120),)) for seed in range(6)]
    answers = [reference(folder("llava"), {"strategy": name, "keep": 16}, asked) for name in ("divprune", "fastervlm")]
    assert sum(one[0] != other[0] for one, other in zip(*answers, strict=True)) >= 3


def test_without_a_strategy_the_model_is_vllms_own(folder):
    llm = engine(folder("llava"), None)
    asked = [Request("see <image> which digit?", ((5, 140, 120),))]
    assert differing(ids(served(llm, asked)), reference(folder("llava"), None, asked)) == []
    assert llm.llm_engine.model_config.architecture == "LlavaForConditionalGeneration"


def test_a_bad_budget_is_refused_and_the_engine_lives_on(folder):
    llm = engine(folder("llava"), {"strategy": "fastervlm", "keep": 16})
    good = Request("see <image> which digit?", ((5, 140, 120),))
    with pytest.raises(ValueError, match="keep=0 keeps no token"):
        served(llm, [Request(good.text, good.images, keep=0)])
    assert len(ids(served(llm, [good]))) == 1


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"strategy": "fastv", "keep": 0.25}, "between decoder layers"),
        ({"strategy": "vispruna", "keep": 0.25}, "did you mean vispruner"),
    ],
    ids=["decoder", "unknown"],
)
def test_what_cannot_be_served_does_not_start(folder, strategy, said):
    with pytest.raises(Exception, match=said):
        engine(folder("llava"), strategy)
