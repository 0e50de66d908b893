"""A tiny random Video-LLaVA with the embedded model's words; its video processor needs torchvision."""

import sys
from pathlib import Path

import torch
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from seeless.tiny import tiny_path

SIZE, PATCH = 32, 8


def save_video_llava(folder):
    embedded = AutoProcessor.from_pretrained(tiny_path())
    words = embedded.tokenizer
    words.add_special_tokens({"additional_special_tokens": ["<video>"]})
    text = LlavaConfig.from_pretrained(tiny_path()).text_config
    text.num_hidden_layers, text.vocab_size = 4, len(words)
    config = VideoLlavaConfig(
        text_config=text,
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SIZE,
            patch_size=PATCH,
        ),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    processor = VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(**sizes),
        video_processor=VideoLlavaVideoProcessor(**sizes),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=embedded.chat_template.replace("<image>", "<' ~ part['type'] ~ '>").replace(
            "part['type'] == 'image'", "part['type'] != 'text'"
        ),
    )
    torch.manual_seed(0)
    VideoLlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    from seeless.cli.main import main

    save_video_llava(Path(sys.argv[1]))
    main(["eval", "--model", sys.argv[1], *sys.argv[2:]])
