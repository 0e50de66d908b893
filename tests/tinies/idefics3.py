"""Idefics3: prompts as SmolVLM's."""

from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from .smolvlm import SmolVLM


class Idefics3(SmolVLM):
    name = "idefics3"
    model_class = Idefics3ForConditionalGeneration
    config_class = Idefics3Config
