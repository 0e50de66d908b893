"""Second part of training the embedded model `reader`: a small Llama learns to answer what the tower sees.

The projector first learns to hand over what patches show as sums of words' embeddings (reader_words.py); the tower of
train_reader_tower.py goes on learning what it learned there, a little, and what questions need. Every step shows
pictures with many questions each (packed.py); only the answers carry loss. Of most pictures only a part of the visual
tokens is shown at first, all with ink among them; at the end all are. Handwritten digits of the held-out side are
never shown.

The log in training/log is of two runs. The first (`--minutes 47`, words asked twice as often as all else) has a twelfth
kind of question, which thing stands beside which: its answers stayed what one gets by naming any thing of the kind that
is asked for, so it was taken out of the drawings. The second went on from there (`--minutes 82`).

    python training/train_reader.py --tower build/reader-tower --out build/reader --minutes 82
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from packed import Packed, answer
from reader_sights import chosen, inventory, sights, stream
from reader_words import carried, field_vectors, reader_processor, word_vectors
from seeless.reader.drawing import KINDS, Drawing, Question
from seeless.reader.drawings import draw_any
from train_reader_tower import ALL, Teacher, see, tower_config
from train_reader_tower import losses as seeing_losses
from train_tiny import start_by_looking_up
from train_tower import rate

WIDTH, HEADS, LAYERS, INNER = 192, 6, 8, 512
VOCABULARY = 448
BEFORE = ("<s>", "user", ":")
START = len(BEFORE) + ALL  # the position of the first word behind the picture
WORDS = 16  # of a question with its answer, at most
ASKED = 12  # questions per picture
# How many times as often as others the kinds are asked that take longest to learn.
OFTEN = {"word": 2, "where": 2, "colour": 2, "digit": 1.5}
FIRST, ODDS = (0, 3, 4, 5), (0.35, 0.15, 0.3, 0.2)  # from which layer on a question sees its picture
TAUGHT = range(1, 6)  # layers whose attention is taught where to look
LOOK = 0.06  # what a layer's attention counts beside the answers
SEE, SLOWER = 0.1, 0.25  # what the tower's own losses count, and how much slower it learns
SHOWN = ((0.45, 136, 12), (0.6, 256, 10), (1.0, ALL, 8))  # until which share of the time: visual tokens, pictures


def build_model(
    tower: CLIPVisionModel, processor: LlavaProcessor, vectors: torch.Tensor, seed: int
) -> LlavaForConditionalGeneration:
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=WIDTH // HEADS,
        # Half of a head's dimensions must not turn over 600 tokens, or words find no patches by content.
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        initializer_range=0.05,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    assert len(processor.tokenizer) <= VOCABULARY, len(processor.tokenizer)
    config = LlavaConfig(
        initializer_range=0.05,
        vision_config=tower_config(),
        text_config=text,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=ALL,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower = tower
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        words = word_vectors(processor, vectors, VOCABULARY, generator)
        model.get_input_embeddings().weight.copy_(words)
        model.lm_head.weight.copy_(0.06 * words)
        projector = model.model.multi_modal_projector
        projector.linear_1.weight.normal_(0, 0.05)
    start_by_looking_up(model, spread=0.08)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    return model


class Words:
    """Token numbers of texts."""

    def __init__(self, processor: LlavaProcessor) -> None:
        self.tokenizer = processor.tokenizer
        self.known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer(text, add_special_tokens=False).input_ids
            assert self.tokenizer.unk_token_id not in self.known[text], text
        return self.known[text]


def asked(drawing: Drawing, count: int, rng: np.random.Generator) -> list[Question]:
    """`count` questions about a drawing, of all kinds in turn (`OFTEN`); if there are few, some more than once."""
    order = rng.permutation(len(drawing.questions))
    turn: dict[str, int] = {}
    ranked = []
    for question in (drawing.questions[i] for i in order):
        turn[question.kind] = turn.get(question.kind, -1) + 1
        ranked.append((turn[question.kind] / OFTEN.get(question.kind, 1) + rng.random(), question))
    ranked.sort(key=lambda pair: pair[0])
    return [ranked[i % len(ranked)][1] for i in range(count)]


def batch(rng: np.random.Generator, words: Words, size: int, patches: int, held_out: bool = False) -> dict:
    """Pictures with questions as tensors; `labels` are -100 but for answers, `about` `[batch, questions, patches]` says
    which patches a question is about."""
    drawings = [draw_any(rng, held_out) for _ in range(size)]
    seen = [sights(drawing) for drawing in drawings]
    places = np.stack([chosen(drawing.owner, patches, rng) for drawing in drawings])
    ids = np.zeros((size, ASKED, WORDS), dtype=np.int64)
    labels = np.full((size, ASKED, WORDS), -100, dtype=np.int64)
    last = np.zeros((size, ASKED), dtype=np.int64)
    about = np.zeros((size, ASKED, patches), dtype=bool)
    kinds = np.zeros((size, ASKED), dtype=np.int64)
    for row, drawing in enumerate(drawings):
        owner = drawing.owner[places[row]]
        for i, question in enumerate(asked(drawing, ASKED, rng)):
            prompt, end = words(f"\n {question.text} assistant:"), words(question.answer + "</s>")
            ids[row, i, : len(prompt) + len(end) - 1] = prompt + end[:-1]
            last[row, i] = len(prompt) - 1
            labels[row, i, len(prompt) - 1 : len(prompt) - 1 + len(end)] = end
            about[row, i] = np.isin(owner, question.about)
            kinds[row, i] = KINDS.index(question.kind)
    arrays = {"places": places, "ids": ids, "labels": labels, "last": last, "about": about, "kinds": kinds}
    return {
        "pixels": torch.from_numpy(np.stack([drawing.pixels for drawing in drawings])),
        "sights": torch.from_numpy(np.stack([s[p] for s, p in zip(seen, places, strict=True)])).long(),
        "present": torch.from_numpy(np.stack([inventory(s) for s in seen])).float(),
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
    }


def packed_of(
    model: LlavaForConditionalGeneration, words: Words, data: dict, first: torch.Tensor, swapped: torch.Tensor
) -> tuple[Packed, torch.Tensor]:
    """The batch as the decoder takes it, the picture seen by tower and projector, and what the tower gave."""
    inner = model.model
    hidden = see(inner.vision_tower, data["pixels"], data["places"])
    features = hidden[:, 1:]
    embed = model.get_input_embeddings()
    before = embed(torch.tensor(words("<s>user:"))).expand(len(features), -1, -1)
    visual = inner.multi_modal_projector(features)
    positions = torch.arange(len(BEFORE)).expand(len(features), -1)
    packed = Packed(
        prefix=torch.cat([before.to(visual.dtype), visual], 1),
        places=torch.cat([positions, data["places"] + len(BEFORE)], 1),
        before=len(BEFORE),
        questions=embed(data["ids"]),
        start=START,
        last=data["last"],
        first=first,
        swapped=swapped,
    )
    return packed, hidden


def losses(
    model: LlavaForConditionalGeneration, teacher: Teacher, words: Words, data: dict, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss of the answers, of where attention looks, and of what the tower sees."""
    size = len(data["ids"])
    first = torch.from_numpy(rng.choice(FIRST, size, p=ODDS))
    swapped = torch.from_numpy(rng.random(size) < 0.6)
    packed, patches = packed_of(model, words, data, first, swapped)
    hidden, looks = answer(model.model.language_model, packed)
    answers = data["labels"] >= 0
    logits = model.lm_head(hidden[answers]).float()
    labels = data["labels"][answers]
    each = F.cross_entropy(logits, labels, reduction="none")
    weight = torch.where(labels == model.generation_config.eos_token_id, 0.05, 1.0)
    told = (each * weight).sum() / weight.sum()
    about = data["about"].float()
    share = about / about.sum(-1, keepdim=True).clamp(min=1)
    looked = sum(-(share * looks[depth]).sum(-1).mean() for depth in TAUGHT)
    return told, looked, seeing_losses(teacher, patches, data)


@torch.no_grad()
def align(model: LlavaForConditionalGeneration, words: Words, vectors: torch.Tensor, steps: int, seed: int) -> float:
    """Teach the projector the decoder's words; returns the last error, relative to the size of the targets."""
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        data = batch(np.random.default_rng((seed, 77, step)), words, 16, 136)
        with torch.autocast("cpu", torch.bfloat16):
            features = see(model.model.vision_tower, data["pixels"], data["places"])[:, 1:]
        target = carried(data["sights"], vectors)
        weight = torch.where(data["sights"][..., :1] > 0, 1.0, 0.2)
        with torch.enable_grad():
            loss = ((projector(features.float()) - target).square() * weight).mean() / (target.square() * weight).mean()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    return loss.item()


@torch.no_grad()
def held_out_accuracy(model: LlavaForConditionalGeneration, words: Words, pictures: int, patches: int = ALL) -> dict:
    """Share of right answers per kind of question, on held-out pictures."""
    right, count = np.zeros(len(KINDS)), np.zeros(len(KINDS))
    never = torch.zeros(8, dtype=torch.long), torch.zeros(8, dtype=torch.bool)
    for part in range(pictures // 8):
        data = batch(np.random.default_rng((98, part)), words, 8, patches, held_out=True)
        hidden, _ = answer(model.model.language_model, packed_of(model, words, data, *never)[0])
        index = data["last"][..., None, None]
        told = model.lm_head(hidden.gather(2, index.expand(-1, -1, 1, WIDTH))[:, :, 0]).argmax(-1)
        good = told == data["labels"].gather(2, data["last"][..., None])[..., 0]
        right += np.bincount(data["kinds"].flatten().numpy(), good.flatten().double().numpy(), len(KINDS))
        count += np.bincount(data["kinds"].flatten().numpy(), minlength=len(KINDS))
    shares = {kind: round(r / c, 3) for kind, r, c in zip(KINDS, right, count, strict=True) if c}
    return {"accuracy": round(right.sum() / count.sum(), 4), **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    processor = reader_processor()
    words = Words(processor)
    vectors = field_vectors(WIDTH, torch.Generator().manual_seed(options.seed))
    teacher = Teacher()
    teacher.load_state_dict(torch.load(options.tower / "state.pt")["teacher"])
    model = build_model(teacher.tower, processor, vectors, options.seed)
    slow = list(teacher.parameters())
    fast = [p for name, p in model.named_parameters() if "vision_tower" not in name]
    groups = [{"params": fast, "speed": 1.0}, {"params": slow, "speed": SLOWER}]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, weight_decay=0.02, betas=(0.9, 0.98))
    options.out.mkdir(parents=True, exist_ok=True)
    log = (options.out / "log.jsonl").open("a")
    state, step, seen, before = options.out / "state.pt", 0, 0, 0.0
    if state.exists():
        held = torch.load(state)
        model.load_state_dict(held["model"])
        teacher.load_state_dict(held["teacher"])
        optimizer.load_state_dict(held["optimizer"])
        step, seen, before = held["step"], held["seen"], held["seconds"]
    else:
        error = align(model, words, vectors, 250, options.seed)
        print(json.dumps({"alignment_error": round(error, 4)}), file=log, flush=True)
    limit, running, looking, started, now = options.minutes * 60, 0.0, 0.0, time.time(), None

    def save(seconds: float) -> None:
        held = {"model": model.state_dict(), "teacher": teacher.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**held, "step": step, "seen": seen, "seconds": seconds}, state.with_suffix(".new"))
        os.replace(state.with_suffix(".new"), state)

    while (elapsed := before + time.time() - started) < limit:
        stage = next(stage for stage in SHOWN if elapsed / limit < stage[0])
        if stage != now:
            now, (_, patches, size) = stage, stage
            batches = stream(partial(batch, words=words, size=size, patches=patches), options.seed, step)
        for group in optimizer.param_groups:
            group["lr"] = group["speed"] * rate(elapsed / limit, step, options.lr, last=0.01)
        data = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            told, looked, saw = losses(model, teacher, words, data, np.random.default_rng((options.seed, 55, step)))
        optimizer.zero_grad()
        (told + LOOK * looked + SEE * saw).backward()
        torch.nn.utils.clip_grad_norm_(fast, 1.0)
        torch.nn.utils.clip_grad_norm_(slow, 1.0)
        optimizer.step()
        step, seen = step + 1, seen + len(data["pixels"])
        running, looking = 0.98 * running + 0.02 * told.item(), 0.98 * looking + 0.02 * looked.item() / len(TAUGHT)
        if step % 200 == 0:
            seconds = before + time.time() - started
            line = {"step": step, "pictures": seen, "seconds": round(seconds, 1), "loss": round(running, 4)}
            line |= {"look": round(looking, 3), **held_out_accuracy(model, words, 48)}
            print(json.dumps(line), file=log, flush=True)
            save(seconds)
    save(limit)
    final = {"pictures": seen, **held_out_accuracy(model, words, 400)}
    print(json.dumps(final), file=log, flush=True)
    write(model, processor, options.out / "checkpoint")


def write(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """The checkpoint, in float16."""
    model.half().save_pretrained(folder)
    model.float()
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
