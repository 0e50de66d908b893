"""Second half of training the embedded model: a small Llama learns to answer questions about what the tower sees.

The tower of train_tower.py stays frozen. Every step shows scenes of one to five digits with a conversation of all
their questions; only the answers carry loss. No digit is asked about twice in a conversation, so no answer can be
copied from an earlier turn. Digits of the held-out side are never shown.

    python training/train_tiny.py --tower build/tower --out build/tiny --minutes 16
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import (
    AutoProcessor,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from seeless.tiny.scenes import (
    COLOUR_NAMES,
    IMAGE_SIZE,
    MAX_DIGITS,
    PATCH_SIZE,
    QUESTION_TYPES,
    TEMPLATES,
    ask,
    compose,
    draw_scenes,
    sample_contents,
)
from train_tower import MEAN, STD, rate, tower_config
from word_processor import build_processor

VISUAL = (IMAGE_SIZE // PATCH_SIZE) ** 2


def tiny_processor() -> LlavaProcessor:
    """The words of all questions and answers, digits one by one; pictures of 96 pixels."""
    filled = [text.format(colour="red", digit="7") for texts in TEMPLATES.values() for text in texts]
    return build_processor([*filled, *map(str, range(10)), *COLOUR_NAMES], IMAGE_SIZE, PATCH_SIZE, MEAN, STD)


def build_model(tower: Path, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    text = LlamaConfig(
        vocab_size=64,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=32,
        # Most of a head's 32 dimensions must not turn over 200 tokens, or words find no patches by content.
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        initializer_range=0.08,  # flat attention at the usual 0.02 costs a narrow model thousands of steps
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    assert len(processor.tokenizer) <= text.vocab_size
    config = LlavaConfig(
        initializer_range=0.08,
        vision_config=tower_config(),
        text_config=text,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=VISUAL,
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(CLIPVisionModel.from_pretrained(tower).state_dict())
    model.model.vision_tower.requires_grad_(False)
    with torch.no_grad():  # words of size 1/2, and a projector that takes the tower's large features to that size
        model.get_input_embeddings().weight.normal_(0, 0.5)
        model.model.multi_modal_projector.linear_1.weight.normal_(0, 0.02)
    start_by_looking_up(model)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    return model


@torch.no_grad()
def start_by_looking_up(model: LlavaForConditionalGeneration, spread: float = 0.09) -> None:
    """Let every head start out attending to what resembles its own token, and passing that on.

    Keys equal queries and values pass through unchanged (Trockman and Kolter, "Mimetic Initialization of Self-Attention
    Layers", ICML 2023), so a word looks up the patches that carry it from the first step on. From a plain random start
    this look-up did not form within 30,000 scenes.
    """
    config = model.config.text_config
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        attention.k_proj.weight.normal_(0, spread)
        shared = attention.k_proj.weight.view(kv_heads, size, -1).repeat_interleave(heads // kv_heads, 0)
        attention.q_proj.weight.copy_(shared.flatten(0, 1))
        torch.nn.init.orthogonal_(attention.v_proj.weight)
        values = attention.v_proj.weight.view(kv_heads, size, -1).repeat_interleave(heads // kv_heads, 0)
        attention.o_proj.weight.copy_(0.5 * kv_heads / heads * values.flatten(0, 1).T)


def align_projector(model: LlavaForConditionalGeneration, processor: LlavaProcessor, steps: int, seed: int) -> float:
    """Teach the projector the decoder's words: a patch becomes the embedding of its digit plus that of its colour.

    What LLaVA's first stage does with captions; without it the decoder needs tens of thousands of scenes to find out
    which patch a word of the question means. Returns the last error, relative to the size of the targets.
    """
    generator = torch.Generator().manual_seed(seed)
    words = model.get_input_embeddings().weight.detach()
    digits_at = words[processor.tokenizer.convert_tokens_to_ids([str(d) for d in range(10)])]
    colours_at = words[processor.tokenizer.convert_tokens_to_ids(list(COLOUR_NAMES))]
    projector = model.model.multi_modal_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        digits, colours = sample_contents(16, 1, 9, generator)
        pixels, cell = compose(digits, colours, False, generator)
        with torch.no_grad():
            features = model.model.vision_tower((pixels - MEAN) / STD).last_hidden_state[:, 1:]
        inside = cell.clamp(min=0)
        target = digits_at[digits.gather(1, inside).clamp(min=0)] + colours_at[colours.gather(1, inside)]
        target = torch.where((cell >= 0)[..., None], target, torch.zeros(()))
        loss = (projector(features) - target).square().mean() / target.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


class Conversations:
    """Batches of training conversations, right-padded, labels on the answers alone."""

    def __init__(self, processor: LlavaProcessor, generator: torch.Generator) -> None:
        self.tokenizer, self.generator = processor.tokenizer, generator
        self.image = self.tokenizer.convert_tokens_to_ids("<image>")
        self.words: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self.words:
            self.words[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.words[text]

    def pairs(self, digits: list[int], colours: list[str]) -> tuple[list[int], list[int]]:
        """A closing turn that lists digits and colours, in pairs; only the second word of a pair carries loss.

        It teaches the one look-up every question needs, from a word to its patch and on to the other word of that
        patch, at the very place of the word. It comes last, so that no question can be answered from it.
        """
        by_colour = torch.rand((), generator=self.generator) < 0.5
        tokens = self.ids("user:colour digit?assistant:" if by_colour else "user:digit colour?assistant:")
        targets = [-100] * len(tokens)
        for i in torch.randperm(len(digits), generator=self.generator).tolist():
            pair = [colours[i], str(digits[i])] if by_colour else [str(digits[i]), colours[i]]
            tokens = tokens + self.ids(pair[0]) + self.ids(pair[1])
            targets += [-100, *self.ids(pair[1])]
        return tokens, targets

    def batch(self, size: int) -> dict[str, torch.Tensor]:
        digits, colours = sample_contents(size, 1, MAX_DIGITS, self.generator)
        pixels, _ = compose(digits, colours, False, self.generator)
        rows, labels = [], []
        for row in range(size):
            used = digits[row] >= 0
            names = [COLOUR_NAMES[i] for i in colours[row][used].tolist()]
            tokens, targets = self.ids("<s>user:") + [self.image] * VISUAL + self.ids("\n"), []
            targets = [-100] * len(tokens)
            for turn, question in enumerate(ask(digits[row][used].tolist(), names, self.generator)):
                prompt = ([] if turn == 0 else self.ids("user:")) + self.ids(question.text) + self.ids("assistant:")
                answer = self.ids(question.answer) + self.ids("</s>")
                tokens += prompt + answer
                targets += [-100] * len(prompt) + answer
            pairs, pair_targets = self.pairs(digits[row][used].tolist(), names)
            tokens += pairs
            targets += pair_targets
            rows.append(tokens)
            labels.append(targets)
        longest = max(map(len, rows))
        return {
            "input_ids": torch.tensor([r + [0] * (longest - len(r)) for r in rows]),
            "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
            "labels": torch.tensor([t + [-100] * (longest - len(t)) for t in labels]),
            "pixel_values": (pixels - MEAN) / STD,
        }


@torch.no_grad()
def held_out_accuracy(model, processor, scenes: int, seed: int) -> dict[str, float]:
    """Share of right answers per question type; every question is asked alone, on held-out digits."""
    model.eval()
    right = dict.fromkeys(QUESTION_TYPES, 0)
    asked = dict.fromkeys(QUESTION_TYPES, 0)
    words = Conversations(processor, torch.Generator())
    for scene in draw_scenes(scenes, torch.Generator().manual_seed(seed), True):
        for question in scene.questions:
            ids = words.ids("<s>user:") + [words.image] * VISUAL + words.ids("\n")
            ids = torch.tensor([ids + words.ids(question.text) + words.ids("assistant:")])
            pixels = ((scene.pixels - MEAN) / STD)[None]
            logits = model(input_ids=ids, pixel_values=pixels, logits_to_keep=1).logits
            asked[question.kind] += 1
            right[question.kind] += int([logits[0, -1].argmax().item()] == words.ids(question.answer))
    model.train()
    return {kind: right[kind] / asked[kind] for kind in QUESTION_TYPES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    processor = tiny_processor()
    model = build_model(options.tower, processor).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=0.02, betas=(0.9, 0.98))
    data = Conversations(processor, torch.Generator().manual_seed(options.seed))
    options.out.mkdir(parents=True, exist_ok=True)
    log = (options.out / "log.jsonl").open("w")

    def save() -> None:
        model.half().save_pretrained(options.out)
        model.float()
        processor.save_pretrained(options.out)
        AutoProcessor.from_pretrained(options.out)

    print(json.dumps({"alignment_error": align_projector(model, processor, 300, options.seed)}), file=log, flush=True)
    started, step, seen, running = time.time(), 0, 0, 0.0
    while (elapsed := time.time() - started) < options.minutes * 60:
        share = elapsed / (options.minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = rate(share, step, options.lr, last=0.01)
        batch = data.batch(options.batch)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step, seen, running = step + 1, seen + options.batch, 0.98 * running + 0.02 * loss.item()
        if step % 200 == 0:
            line = {"step": step, "scenes": seen, "seconds": round(time.time() - started, 1), "loss": running}
            line |= held_out_accuracy(model, processor, 60, seed=5)
            print(json.dumps(line), file=log, flush=True)
            save()
    save()
    result = {"scenes": seen, "held_out": held_out_accuracy(model, processor, 400, seed=6)}
    print(json.dumps(result), file=log, flush=True)


if __name__ == "__main__":
    main()
