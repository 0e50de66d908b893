"""Tiny random Qwen-VL models with tokenizer and processor; needs torchvision, as their processors do."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>"]
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PIXELS = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 36}


def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(["how many digits are there? which digit is red?"] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    return made


def save_qwen(kind: str, folder: Path) -> Path:
    """A `qwen2_vl` or `qwen3_vl`."""
    from transformers import Qwen2VLProcessor, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    words = tokenizer()
    token = words.convert_tokens_to_ids
    patch = {"patch_size": 14 if kind == "qwen2_vl" else 16, "temporal_patch_size": 2, "merge_size": 2}
    pixels = {name: value * patch["patch_size"] ** 2 // 14**2 for name, value in PIXELS.items()}
    images = Qwen2VLImageProcessorPil(**patch, size=pixels)
    video_class = Qwen2VLVideoProcessor if kind == "qwen2_vl" else Qwen3VLVideoProcessor
    processor_class = Qwen2VLProcessor if kind == "qwen2_vl" else Qwen3VLProcessor
    videos = video_class(**patch, size=pixels)
    processor = processor_class(images, words, videos, chat_template=TEMPLATE)
    text = {
        "vocab_size": len(words),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "max_position_embeddings": 4096,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "bos_token_id": None,
    }
    marks = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": False,
    }
    tower = {"depth": 3, "num_heads": 4, "patch_size": patch["patch_size"], "initializer_range": 0.2}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    torch.manual_seed(0)
    if kind == "qwen2_vl":
        tower |= {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
        config = Qwen2VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=tower, **marks)
        model = Qwen2VLForConditionalGeneration(config)
    else:
        tower |= {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64, "num_position_embeddings": 64}
        tower["deepstack_visual_indexes"] = [0, 1, 2]
        text |= {"head_dim": 16, "rope_parameters": {**rope, "mrope_interleaved": True}}
        config = Qwen3VLConfig(text_config=text, vision_config=tower, **marks)
        model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for mark in SPECIAL[1:]:  # never an answer
            model.lm_head.weight[token(mark)] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
