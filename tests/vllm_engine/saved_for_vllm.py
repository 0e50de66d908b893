"""Tiny random models of the families that vLLM serves, saved as their checkpoints on the hub are, with processors."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>", "<image>", "<video>"]
INTERN = ["<img>", "</img>", "<IMG_CONTEXT>"]
SIDE, PATCH = 56, 7  # pixels: 64 patches
LAYERS = 3
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def words(**more) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(["how many digits are there? which digit is red?"] * 4, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", **more)
    made.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    return made


def text_options(tokenizer: PreTrainedTokenizerFast, **more) -> dict:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "initializer_range": 0.2,
        "max_position_embeddings": 4096,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "bos_token_id": None,
        "tie_word_embeddings": False,
        **more,
    }


def clip(side: int = SIDE, patch: int = PATCH) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=side,
        patch_size=patch,
        projection_dim=32,
    )


def siglip() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )


@torch.no_grad()
def spread(model, tokenizer) -> None:
    """Weights far enough apart that attention is not flat and no choice is a near-tie; marks are never an answer."""
    for name, p in model.named_parameters():
        inside = "vision" in name or "visual" in name or "projector" in name
        if not inside:
            continue
        if "position" in name or "pos_embed" in name or "class_embedding" in name:
            p.normal_(0, 0.5)
        elif "newline" in name:
            p.normal_(0, 0.3)
        elif p.ndim > 1:
            p.normal_(0, 1.4 / p[0].numel() ** 0.5)
        elif name.endswith("bias"):
            p.normal_(0, 0.1)
    for mark in SPECIAL:
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(mark)] = 0


def write(model, processor, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {
        key.replace("vision_tower.", "vision_tower.vision_model.")
        if key.startswith("vision_tower.") and "vision_model" not in key and "internvl" not in model.config.model_type
        else key: value
        for key, value in load_file(file).items()
    }
    save_file(weights, file, {"format": "pt"})
    return folder


def save_llava(
    folder: Path, tower: str = "clip", side: int = SIDE, patch: int = PATCH, layers: int = LAYERS, **sizes
) -> Path:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = words()
    select = "default" if tower == "clip" else "full"
    config = LlavaConfig(
        text_config=LlamaConfig(**text_options(tokenizer, num_hidden_layers=layers, **sizes)),
        vision_config=clip(side, patch) if tower == "clip" else siglip(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // patch) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy=select,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    spread(model, tokenizer)
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=select,
        image_token="<image>",
        num_additional_image_tokens=1 if tower == "clip" else 0,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return write(model, processor, folder)


def save_llava_next(folder: Path) -> Path:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = words()
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = LlavaNextConfig(
        text_config=LlamaConfig(**text_options(tokenizer)),
        vision_config=clip(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config)
    spread(model, tokenizer)
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=pinpoints
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return write(model, processor, folder)


def save_llava_onevision(folder: Path) -> Path:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        Qwen2Config,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
    from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

    tokenizer = words()
    pinpoints = [[SIDE * i, SIDE * j] for i in range(1, 5) for j in range(1, 5)]
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**text_options(tokenizer)),
        vision_config=siglip(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config)
    spread(model, tokenizer)
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=pinpoints),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", "<video>"),
    )
    return write(model, processor, folder)


def save_qwen(kind: str, folder: Path) -> Path:
    """A `qwen2_5_vl`, `qwen3_vl` or `qwen3_5`."""
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    tokenizer = words()
    token = tokenizer.convert_tokens_to_ids
    second = kind == "qwen2_5_vl"
    patch = 14 if second else 16
    sizes = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    pixels = {"shortest_edge": (2 * patch) ** 2 * 4, "longest_edge": (2 * patch) ** 2 * 100}
    colours = {} if second else {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # as those of videos
    images = Qwen2VLImageProcessorPil(**sizes, size=pixels, **colours)
    videos = (Qwen2VLVideoProcessor if second else Qwen3VLVideoProcessor)(**sizes, size=pixels)
    around = "<|vision_start|>%s<|vision_end|>"
    template = TEMPLATE.replace("IMAGE", around % "<|image_pad|>").replace("VIDEO", around % "<|video_pad|>")
    processor_class = transformers.Qwen2_5_VLProcessor if second else transformers.Qwen3VLProcessor
    processor = processor_class(images, tokenizer, videos, chat_template=template)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 8, 8]}
    text = text_options(tokenizer)
    marks = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": False,
    }
    tower = {"depth": 4, "num_heads": 4, "hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 128}
    tower |= {"patch_size": patch}
    torch.manual_seed(0)
    if second:
        tower |= {"window_size": 56, "fullatt_block_indexes": [1, 3], "tokens_per_second": 2}
        config = transformers.Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope}, vision_config=tower, **marks
        )
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    elif kind == "qwen3_vl":
        tower |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        text |= {"rope_parameters": {**rope, "mrope_interleaved": True}}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=tower, **marks)
        model = transformers.Qwen3VLForConditionalGeneration(config)
    else:
        tower |= {"num_position_embeddings": 64}
        heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
        heads |= {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
        own = {"mrope_section": [8, 4, 4], "mrope_interleaved": True, "partial_rotary_factor": 0.5}
        text |= {**heads, "num_hidden_layers": 4, "rope_parameters": {**rope, **own}}
        config = transformers.Qwen3_5Config(text_config=text, vision_config=tower, **marks)
        model = transformers.Qwen3_5ForConditionalGeneration(config)
    spread(model, tokenizer)
    return write(model, processor, folder)


def save_internvl(folder: Path) -> Path:
    import transformers
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    names = ("start_image_token", "end_image_token", "context_image_token", "video_token")
    tokenizer = words(extra_special_tokens=dict(zip(names, [*INTERN, "<video>"], strict=True)))
    tokens = (SIDE // PATCH // 2) ** 2
    config = transformers.InternVLConfig(
        text_config=transformers.Qwen2Config(**text_options(tokenizer)),
        vision_config=transformers.InternVLVisionConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=[SIDE, SIDE],
            patch_size=[PATCH, PATCH],
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(INTERN[2]),
        image_seq_length=tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = transformers.InternVLForConditionalGeneration(config)
    spread(model, tokenizer)
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.InternVLProcessor(
        GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, min_patches=1, max_patches=4),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=tokens,
        chat_template=TEMPLATE.replace("IMAGE", INTERN[2]),
    )
    return write(model, processor, folder)


SAVED: dict[str, Callable[[Path], Path]] = {
    "llava": save_llava,
    "llava_siglip": partial(save_llava, tower="siglip"),
    "llava_next": save_llava_next,
    "llava_onevision": save_llava_onevision,
    "qwen2_5_vl": partial(save_qwen, "qwen2_5_vl"),
    "qwen3_vl": partial(save_qwen, "qwen3_vl"),
    "qwen3_5": partial(save_qwen, "qwen3_5"),
    "internvl": save_internvl,
}


def save(kind: str, folder: Path) -> Path:
    """The model of a kind, in `folder`."""
    return SAVED[kind](folder)
