"""Answers of Qwen-VL models through the plug-in, as JSON: `qwen_answers.py FOLDER TASKS`. Needs torchvision."""

import json
import sys
from io import BytesIO
from pathlib import Path

from lmms_runs import run_here
from lmms_tasks import documents
from PIL import Image
from saved_qwen import save_qwen

import seeless as sl
from seeless.integrations.lmms_eval.model import SeelessLM, SeelessLMChat
from seeless.named.checkpoints import load_model
from seeless.vtr import VTRConfig

WRITTEN, CHOSEN = "small_written", "small_chosen"
FASTV, VTR = sl.FastV(keep=0.25), VTRConfig(prune_layer=2, keep_ratio=0.3)
WAYS = {"one": (SeelessLM, 1), "three": (SeelessLM, 3), "chat": (SeelessLMChat, 3)}
RUNS = {"qwen2_vl": {"none": (None, WAYS), "fastv": (FASTV, WAYS), "vtr": (VTR, ("chat",))}}
RUNS["qwen3_vl"] = {"fastv": (FASTV, WAYS)}


def plain(model, processor) -> list[str]:
    """What the untouched model writes, without the plug-in."""
    answers = []
    for doc in documents():
        if "<image>" in doc["question"]:
            continue
        images = [Image.open(BytesIO(data)).convert("RGB") for data in doc["pictures"]]
        content = [{"type": "image"}] * len(images) + [{"type": "text", "text": doc["question"]}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=images or None, text=text, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        answer = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        answers.append(answer.split("\n")[0].strip())
    return answers


def main(folder: str, tasks: str) -> dict:
    found: dict = {}
    for kind, strategies in RUNS.items():
        loaded = load_model(str(save_qwen(kind, Path(folder) / kind)))
        if kind == "qwen2_vl":
            found["plain"] = plain(loaded.model, loaded.processor)
        for name, (strategy, ways) in strategies.items():
            for way in ways:
                cls, batch = WAYS[way]
                lm = cls.around(loaded.model, loaded.processor, strategy, batch_size=batch, max_frames=6)
                run = run_here(lm, Path(tasks), [WRITTEN] if way == "chat" else [WRITTEN, CHOSEN])
                tokens = {m.doc_id: [m.visual_before, m.visual_average] for m in lm.measures if m.task == WRITTEN}
                found[f"{kind} {name} {way}"] = {**run.answers, "tokens": tokens}
    return found


if __name__ == "__main__":
    print("\n" + json.dumps(main(*sys.argv[1:])))
