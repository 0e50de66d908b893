"""A tiny CLIP model with a tokenizer of words, as wide as the tiny towers, saved to a folder."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.utils import logging

logging.disable_progress_bar()

WORDS = "what colour is the left digit how many are there answer question using a single word or phrase . ? : assistant"


def save_tokenizer(folder):
    """Word by word, between a first and a last token."""
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_clip(folder, width=32, positions=77):
    torch.manual_seed(0)
    shared = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = {"hidden_size": 16, "vocab_size": 40, "max_position_embeddings": positions, **shared, **ends}
    vision = {"hidden_size": width, "image_size": 32, "patch_size": 8, **shared}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)
