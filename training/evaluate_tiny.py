"""Accuracy of the embedded model on held-out scenes, per method and budget, through the public interface alone.

Every question is asked alone in a fresh chat; the answer is the model's greedy one, and must match exactly. The budget
is the one the method is given (its own meaning of a share); the fair number, tokens per layer, is printed beside it.

    python training/evaluate_tiny.py --output results/tiny_accuracy.jsonl
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

import seeless as sl
from seeless.tiny import load_tiny
from seeless.tiny.scenes import QUESTION_TYPES, draw_scenes

BUDGETS = (0.5, 0.25, 0.11, 0.05)
BASELINES = ("random", "uniform", "pool")
LEFT_OUT = {
    "cdpruner": "needs the text tower of the CLIP its tower came from, and this tower has none",
    "evs": "leaves still pictures alone",
    "router": "runs other methods",
}


def strategy(name: str, budget: float) -> sl.Strategy:
    """The method with its paper's defaults and a nominal budget; PyramidDrop in three equal steps down to it."""
    if name == "pyramiddrop":
        return sl.PyramidDrop(keep=[budget ** (1 / 3), budget ** (2 / 3), budget])
    return sl.get(name, keep=budget)


def questions(count: int, processor, batch_size: int, seed: int) -> list[tuple[dict, list]]:
    """At least `count` held-out questions of every type, as ready-made batches of inputs, and the questions."""
    asked: list = []
    generator = torch.Generator().manual_seed(seed)
    while min(sum(q.kind == kind for _, q in asked) for kind in QUESTION_TYPES) < count:
        for scene in draw_scenes(50, generator, held_out=True):
            asked += [(scene.image, question) for question in scene.questions]
    batches = []
    for first in range(0, len(asked), batch_size):
        part = asked[first : first + batch_size]
        prompts = []
        for _, question in part:
            content = [{"type": "image"}, {"type": "text", "text": question.text}]
            prompts.append(
                processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            )
        inputs = processor(images=[image for image, _ in part], text=prompts, padding=True, return_tensors="pt")
        batches.append((inputs, [question for _, question in part]))
    return batches


@torch.no_grad()
def accuracy(model, processor, batches: list, longest: int = 3) -> dict[str, float]:
    """Share of right answers per question type; an answer has at most `longest` tokens."""
    right, asked = dict.fromkeys(QUESTION_TYPES, 0), dict.fromkeys(QUESTION_TYPES, 0)
    for inputs, wanted in batches:
        answers = model.generate(**inputs, max_new_tokens=longest, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        for answer, question in zip(processor.batch_decode(answers, skip_special_tokens=True), wanted, strict=True):
            asked[question.kind] += 1
            right[question.kind] += answer.strip() == question.answer
    return {kind: right[kind] / asked[kind] for kind in QUESTION_TYPES} | {"questions": sum(asked.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=400, help="of every type")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, processor = load_tiny()
    batches = questions(options.questions, processor, options.batch, options.seed)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
    runs: list[tuple[str, float]] = [("none", 1.0)]
    names = [*BASELINES, *(name for name in sl.available() if name not in (*BASELINES, *LEFT_OUT))]
    runs += [(name, budget) for name in names for budget in BUDGETS]
    options.output.write_text("")
    for name, budget in tqdm(runs):
        line = {"strategy": name, "budget": budget}
        if name == "none":
            line |= {"average_tokens": 144.0, "share": 1.0, **accuracy(model, processor, batches)}
        else:
            try:
                with sl.apply(model, strategy(name, budget)) as run:
                    line |= accuracy(model, processor, batches)
                line |= {"average_tokens": run.report.average_tokens, "share": run.report.share}
            except sl.BudgetError as refusal:  # a budget that a method cannot reach on this model
                line["refused"] = str(refusal)
        with options.output.open("a") as file:
            file.write(json.dumps({**line, **about}) + "\n")


if __name__ == "__main__":
    main()
