"""Tiny random models saved to disk with the embedded model's processor."""

import torch
from transformers import (
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
    SiglipVisionConfig,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from seeless.tiny import tiny_path


def save_llava(folder, layers: int = 4, siglip: bool = False, sliding_window: int | None = None):
    """A LLaVA with the embedded model's vocabulary; with `siglip` its tower has no class token."""
    config = LlavaConfig.from_pretrained(tiny_path())
    config.text_config.num_hidden_layers = layers
    if sliding_window is not None:
        sizes = {key: getattr(config.text_config, key) for key in ("hidden_size", "intermediate_size", "vocab_size")}
        heads = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 16}
        config.text_config = MistralConfig(**sizes, **heads, num_hidden_layers=layers, sliding_window=sliding_window)
    processor = AutoProcessor.from_pretrained(tiny_path())
    if siglip:
        config.vision_config = SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=96,
            patch_size=8,
            vision_use_head=False,
        )
        config.vision_feature_select_strategy = "full"
        processor.num_additional_image_tokens = 0
        processor.vision_feature_select_strategy = "full"
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_llava_next(folder):
    """A LLaVA-NeXT with the embedded model's vocabulary, tower size and chat format."""
    config = LlavaConfig.from_pretrained(tiny_path())
    embedded = AutoProcessor.from_pretrained(tiny_path())
    pinpoints = [[96, 192], [192, 96], [192, 192]]
    next_config = LlavaNextConfig(
        text_config=config.text_config,
        vision_config=config.vision_config,
        image_token_index=config.image_token_index,
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}, image_grid_pinpoints=pinpoints
        ),
        tokenizer=embedded.tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=embedded.chat_template,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    LlavaNextForConditionalGeneration(next_config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
