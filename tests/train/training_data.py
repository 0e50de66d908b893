"""Small models, processors and data sets for training tests."""

import json
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from seeless.tiny import draw_scene, tiny_path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (  # as LLaVA-1.5's: nothing closes an answer
    "{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
VICUNA_BLOCKS = VICUNA.replace(
    "{{ part['text'] + ' ' }}",
    "{% if message['role'] == 'assistant' %}{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}"
    "{% else %}{{ part['text'] + ' ' }}{% endif %}",
)
FORGETFUL = (  # leaves out all answers but the last
    "{% for message in messages %}{% if message['role'] == 'user' or loop.last %}{{ message['role'] }}:"
    "{% for part in message['content'] %}{{ part.get('text', '<image>') }}{% endfor %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
ANSWERS = ("a red seven", "two green threes", "nothing at all")


@cache
def byte_tokenizer():
    """Byte-level BPE with LLaVA's and Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = ["what is in the picture? a red seven and two green threes, nothing at all USER: ASSISTANT: system\n"] * 3
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(vocab_size=310, initial_alphabet=alphabet))
    names = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=[*names, "<image>"],
        padding_side="left",
    )


def llava_processor(template=None):
    """The embedded model's, with another chat template if one is given."""
    processor = AutoProcessor.from_pretrained(tiny_path())
    if template is not None:
        processor.tokenizer = byte_tokenizer()
        processor.image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
        processor.chat_template = template
    return processor


def llava_next_processor():
    pinpoints = [[96, 192], [192, 96], [192, 192]]
    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}, image_grid_pinpoints=pinpoints
        ),
        tokenizer=byte_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=VICUNA,
        image_token="<image>",
        num_additional_image_tokens=1,
    )


class WithoutVideo(Qwen2VLProcessor):
    """Qwen's video processor needs torchvision; pictures do not."""

    def check_argument_for_proper_class(self, *arguments):
        return None


def qwen_processor():
    pictures = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=16 * 28 * 28)
    return WithoutVideo(
        image_processor=pictures, tokenizer=byte_tokenizer(), video_processor=None, chat_template=CHATML
    )


PROCESSORS = {
    "embedded": llava_processor,
    "vicuna": lambda: llava_processor(VICUNA),
    "vicuna with blocks": lambda: llava_processor(VICUNA_BLOCKS),
    "llava-next": llava_next_processor,
    "qwen": qwen_processor,
}


def small_model(seed=0):
    """A random LLaVA of the embedded model's vocabulary and picture size, with four decoder layers."""
    config = LlavaConfig.from_pretrained(tiny_path())
    text, tower = config.text_config, config.vision_config
    text.num_hidden_layers, text.hidden_size, text.intermediate_size = 4, 32, 64
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 4, 2, 8
    tower.num_hidden_layers, tower.hidden_size, tower.intermediate_size = 2, 32, 64
    tower.num_attention_heads, tower.projection_dim = 4, 32
    config.vision_feature_layer = -2  # as LLaVA-1.5's: the tower's last layer gets no gradient
    config.dtype = "float32"
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(config)


def entry(name, turns, image=None):
    """A record in LLaVA's format."""
    roles = ("human", "gpt")
    talk = [{"from": roles[number % 2], "value": text} for number, text in enumerate(turns)]
    return {"id": name, "conversations": talk} | ({} if image is None else {"image": image})


def write_data(folder, count=12, suffix="json"):
    """Mixed records with pictures: one picture, none, two, several turns; lengths differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        draw_scene(number, held_out=False).image.save(folder / f"{number}.png")
    records = []
    for number in range(count):
        kind, picture = number % 4, f"{number % 4}.png"
        if kind == 0:
            turns = ["<image>\nhow many digits?", "there are 3 digits", "which digit is red?", "7"]
            records.append(entry(f"two turns {number}", turns, picture))
        elif kind == 1:
            records.append(entry(f"text {number}", ["what colour is the 7?", "the colour is red"]))
        elif kind == 2:
            records.append(entry(f"one turn {number}", ["how many digits are there?<image>", "4"], [picture]))
        else:
            turns = ["<image>how many digits?<image>", "there are 4 digits"]
            records.append(entry(f"two pictures {number}", turns, [picture, "0.png"]))
    file = folder / f"data.{suffix}"
    lines = "\n".join(map(json.dumps, records)) + "\n"
    file.write_text(json.dumps(records) if suffix == "json" else lines)
    return file
