"""A real vLLM answers as transformers does with the same tokens kept: images, videos, budgets, chunks, caches."""

import gc

import pytest

from both import Request, differing, engine, ids, reference, served
from saved_for_vllm import save

SMALL = {"block_size": 32, "max_num_batched_tokens": 24, "max_num_seqs": 8}  # pieces shorter than a picture
LLAVA = [
    {"strategy": "vispruner", "keep": 16},
    {"strategy": "visionzip", "keep": 16},
    {"strategy": "pool", "keep": 0.25},
]
VIDEO = [{"strategy": "evs", "keep": 0.25}, {"strategy": "vidcom2", "keep": 0.25}]
CASES = [
    *(("llava", strategy, {}) for strategy in LLAVA),
    ("llava", {"strategy": "prumerge", "keep": 16}, SMALL),
    ("llava", {"strategy": "divprune", "keep": 16}, {"max_num_encoder_input_tokens": 64}),
    ("llava_siglip", {"strategy": "visionzip", "keep": 16}, {}),
    ("llava_next", {"strategy": "fastervlm", "keep": 16}, SMALL),
    ("llava_next", {"strategy": "divprune", "keep": 0.25}, {}),
    ("llava_onevision", {"strategy": "vispruner", "keep": 0.25}, {}),
    ("qwen2_5_vl", {"strategy": "vispruner", "keep": 0.25}, SMALL),
    *(("qwen2_5_vl", strategy, SMALL) for strategy in VIDEO),
    ("qwen3_vl", {"strategy": "prumerge", "keep": 0.25}, SMALL),
    *(("qwen3_vl", strategy, SMALL) for strategy in VIDEO),
    ("internvl", {"strategy": "visionzip", "keep": 8}, {}),
]


def requests(kind):
    """Pictures tall and wide, several of them, several budgets for one; and videos where the model takes any."""
    qwen = kind.startswith("qwen")
    image = (
        "<IMG_CONTEXT>" if kind == "internvl" else "<|vision_start|><|image_pad|><|vision_end|>" if qwen else "<image>"
    )
    video = "<|vision_start|><|video_pad|><|vision_end|>" if qwen else "<video>"
    one, two = ((5, 140, 120),), ((1, 56, 190), (0, 180, 56))
    found = [
        Request(f"see {image} which digit?", one),
        Request(f"{image} how {image} many?", two),
        Request("how many?"),
    ]
    found += [Request(f"see {image} which digit?", one, keep=keep) for keep in (5, 0.5, 1.0)]
    if qwen or kind == "llava_onevision":
        frames = 6 if qwen else 4
        videos = ((3, 4, 84, 112), (2, frames, 140, 84))
        found += [
            Request(f"see {video} which digit?", videos=((3, 6, 84, 140),)),
            Request(f"{video} how {image} which {video} digit?", ((0, 80, 56),), videos, keep=0.3),
        ]
    return found


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
    asked = requests(kind)
    llm = engine(folder(kind), strategy, **options)
    first, again = served(llm, asked), served(llm, asked)
    truth = reference(folder(kind), strategy, asked)
    assert differing(ids(first), truth) == [] and differing(ids(again), truth) == []
    assert len({tuple(own) for own in ids(first)}) > len(asked) // 2  # the requests do tell each other apart
    if options == SMALL:
        assert sum(output.num_cached_tokens for output in again) > 0


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
