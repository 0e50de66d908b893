"""The same requests to vLLM and to transformers under `sl.apply`: the ids that each generates."""

import os

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import seeless as sl

NEW = 10
TIE = 1e-3


@dataclass(frozen=True)
class Request:
    """A prompt with pictures, each named by its seed and size; `keep` of its own or the server's."""

    text: str
    images: tuple[tuple[int, int, int], ...] = ()  # seed, width, height
    videos: tuple[tuple[int, int, int, int], ...] = ()  # seed, frames, width, height
    keep: float | int | None = None


def picture(seed: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def video(seed: int, frames: int, width: int, height: int) -> np.ndarray:
    """Frames that change a little, and in part, from one to the next."""
    base = np.asarray(picture(seed, width, height)).astype(np.int64)
    moving = [np.roll(base, 9 * i, axis=1) for i in range(frames)]
    half = np.arange(width)[None, :, None] < width // 2
    return np.stack([np.where(half, base, moved) for moved in moving]).astype(np.uint8)


def engine(folder: Path, strategy: dict | None, **options: Any) -> Any:
    from vllm import LLM

    overrides = {} if strategy is None else {"hf_overrides": {"seeless": strategy}}
    return LLM(
        str(folder),
        dtype=options.pop("dtype", "float32"),
        enforce_eager=options.pop("enforce_eager", True),
        max_model_len=options.pop("max_model_len", 1024),
        limit_mm_per_prompt={"image": 3, "video": 2},
        disable_log_stats=False,
        **overrides,
        **options,
    )


def asked(request: Request) -> dict:
    data: dict[str, Any] = {}
    if request.images:
        data["image"] = [picture(*own) for own in request.images]
    if request.videos:
        data["video"] = [(video(*own), metadata(own[1])) for own in request.videos]
    given: dict[str, Any] = {"prompt": request.text, "multi_modal_data": data}
    if request.keep is not None:
        given["mm_processor_kwargs"] = {"seeless": {"keep": request.keep}}
    return given


def metadata(frames: int) -> dict:
    return {
        "fps": 2.0,
        "duration": frames / 2,
        "total_num_frames": frames,
        "frames_indices": list(range(frames)),
        "video_backend": "opencv",
        "do_sample_frames": False,
    }


def served(llm: Any, requests: list[Request], logprobs: int | None = None) -> list[Any]:
    from vllm import SamplingParams

    options = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, logprobs=logprobs)
    return llm.generate([asked(request) for request in requests], options, use_tqdm=False)


def ids(outputs: list[Any]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def reference(folder: Path, strategy: dict | None, requests: list[Request]) -> list[tuple[list[int], torch.Tensor]]:
    """The ids of transformers with the same strategy applied, one request after the other, and their logits."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return answers_of(model, folder, strategy, requests)


def answers_of(model: Any, folder: Path, strategy: dict | None, requests: list[Request]) -> list[tuple]:
    """The same of a model that is loaded already."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "eos_token_id": None}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    found = []
    for request in requests:
        inputs = whole(processor, request)
        with applied(model, strategy, request.keep), torch.no_grad():
            out = model.generate(**inputs, **settings)
        found.append((out.sequences[0, inputs["input_ids"].shape[1] :].tolist(), torch.cat(out.logits)))
    return found


def applied(model: Any, strategy: dict | None, keep: float | int | None) -> Any:
    """The model with a strategy put on it."""
    if strategy is None:
        return nullcontext()
    own = sl.from_dict(strategy)
    return sl.apply(model, own if keep is None else replace(own, keep=keep))


def differing(own: list[list[int]], truth: list[tuple[list[int], torch.Tensor]]) -> list[tuple]:
    """Requests with another answer: their numbers, where they part, and by how much transformers preferred its own id.

    A preference below `TIE`, which rounding alone decides, is no difference; what follows on it is not compared.
    """
    found = []
    for number, (ids, (expected, logits)) in enumerate(zip(own, truth, strict=True)):
        for step, (one, other) in enumerate(zip(ids, expected, strict=True)):
            if one != other:
                gap = float(logits[step, other] - logits[step, one])
                if gap >= TIE:
                    found.append((number, step, gap))
                break
    return found


def drift(outputs: list[Any], truth: list[tuple[list[int], torch.Tensor]]) -> float:
    """By how much the likeliest first ids' log-probabilities differ from those of transformers, at most."""
    found = 0.0
    for output, (_, logits) in zip(outputs, truth, strict=True):
        expected = torch.log_softmax(logits[0].float(), -1)
        for token, own in output.outputs[0].logprobs[0].items():
            found = max(found, abs(own.logprob - float(expected[token])))
    return found


def whole(processor: Any, request: Request) -> Any:
    """What transformers' processor makes of a request."""
    given: dict[str, Any] = {"text": request.text, "return_tensors": "pt", "add_special_tokens": False}
    if request.images:
        given["images"] = [picture(*own) for own in request.images]
    if request.videos:
        given["videos"] = [video(*own) for own in request.videos]
        given["do_sample_frames"] = False
        own = [metadata(frames) for _, frames, _, _ in request.videos]
        given["video_metadata"] = [[{k: v for k, v in each.items() if k != "do_sample_frames"} for each in own]]
    return processor(**given)
