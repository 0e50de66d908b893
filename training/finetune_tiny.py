"""Fine-tune the embedded model with and without PyramidDrop, from the same start, and compare what comes of it.

The model answers questions about digits in one word; here it learns to answer in sentences, from conversations about
scenes drawn with digits of the training side. Both runs of a seed see the same records in the same order for as many
steps, each in a process of its own (`seeless train`). Accuracy is on held-out digits: every question asked alone in a
fresh chat, the greedy answer exactly the sentence. The model that was trained with reduction answers with it; the
untouched one answers without, and once more with it ("reduced"), which is what reduction without training gives.

    python training/finetune_tiny.py --output results/finetune.jsonl
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from tqdm import tqdm
from transformers import AutoProcessor, LlavaForConditionalGeneration

import seeless as sl
import seeless.tiny
from make_tasks import held_out_questions
from seeless.provenance import provenance
from seeless.tiny.scenes import QUESTION_TYPES
from seeless.train import write_scenes
from seeless.train.scenes import sentence

STRATEGIES: dict[str, list[str]] = {"none": [], "pyramiddrop": ["--strategy", "pyramiddrop"]}
LONGEST = 6  # tokens of an answer and its end


def train(name: str, data: Path, output: Path, seed: int, options: argparse.Namespace) -> dict:
    """One run of `seeless train`; gives its `run.json`."""
    command = [sys.executable, "-m", "seeless.cli.main", "train", "--data", data, "--output", output, "--seed", seed]
    command += ["--steps", options.steps, "--batch", options.batch, "--lr", options.lr, *STRATEGIES[name]]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / "run.json").read_text())


def batches(asked: list, processor, size: int = 32) -> list[tuple[dict, list]]:
    """Held-out questions as ready-made batches of inputs, every question alone in a chat, and what is wanted."""
    made = []
    for first in range(0, len(asked), size):
        part, prompts = asked[first : first + size], []
        for _, question in part:
            content = [{"type": "image"}, {"type": "text", "text": question.text}]
            chat = [{"role": "user", "content": content}]
            prompts.append(processor.apply_chat_template(chat, add_generation_prompt=True))
        images = [scene.image for scene, _ in part]
        inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt")
        made.append((inputs, [replace(question, answer=sentence(question)) for _, question in part]))
    return made


@torch.no_grad()
def accuracy(model, processor, batches: list) -> dict[str, float]:
    """Share of right answers per question type."""
    right, asked = dict.fromkeys(QUESTION_TYPES, 0), dict.fromkeys(QUESTION_TYPES, 0)
    for inputs, wanted in batches:
        answers = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        for answer, question in zip(processor.batch_decode(answers, skip_special_tokens=True), wanted, strict=True):
            asked[question.kind] += 1
            right[question.kind] += answer.strip() == question.answer
    return {kind: right[kind] / asked[kind] for kind in QUESTION_TYPES} | {"questions": sum(asked.values())}


def answered(folder: Path, asked: list, strategy: str | None) -> dict[str, float]:
    """Share of right sentences per type of question, and over all types."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    handle = None if strategy is None else sl.apply(model, strategy)
    found = accuracy(model, processor, asked)
    if handle is not None:
        handle.remove()
    return {**found, "mean": fmean(found[kind] for kind in QUESTION_TYPES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--questions", type=int, default=150, help="of every type")
    parser.add_argument("--threads", type=int, default=2, help="for the answers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    _, processor = sl.tiny.load_tiny()
    asked = batches(held_out_questions(options.questions, seed=7), processor)
    about = {"command": shlex.join(["python", *sys.argv]), **provenance()}
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        before = answered(sl.tiny.tiny_path(), asked, None)
        for seed, name in tqdm([(seed, name) for seed in range(options.seeds) for name in STRATEGIES]):
            data = write_scenes(Path(folder) / f"data-{seed}", options.steps * options.batch, seed)
            run = train(name, data, Path(folder) / f"{name}-{seed}", seed, options)
            line = {"seed": seed, "strategy": name, "fields": run["strategy"], "batch": options.batch, "lr": options.lr}
            line |= run["outcome"] | {"accuracy_before": before}
            trained = Path(folder) / f"{name}-{seed}" / "model"
            line["accuracy"] = answered(trained, asked, None if name == "none" else name)
            if name == "none":
                line["accuracy_reduced"] = answered(trained, asked, "pyramiddrop")
            lines.append({**line, **about})
            options.output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"accuracy on held-out digits in %, before: {100 * before['mean']:.1f}")
    for name in STRATEGIES:
        own = [line for line in lines if line["strategy"] == name]
        each = ", ".join(f"{100 * line['accuracy']['mean']:.1f}" for line in own)
        seconds, memory = (fmean(line[key] for line in own) for key in ("seconds_per_step", "peak_memory"))
        mean = 100 * fmean(line["accuracy"]["mean"] for line in own)
        print(f"{name:12} {mean:5.1f} ({each}); {seconds:.3f} s a step, peak memory {memory / 2**20:.0f} MiB")
    reduced = 100 * fmean(line["accuracy_reduced"]["mean"] for line in lines if "accuracy_reduced" in line)
    print(f"{'none':12} {reduced:5.1f} when it answers with pyramiddrop, for which it was not trained")


if __name__ == "__main__":
    main()
