"""Processors of the embedded models: a tokenizer whose tokens are words, CLIP's preprocessing, and a plain chat."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ 'user:' if message['role'] == 'user' else ' assistant:' }}"
    "{% if message['content'] is string %}{{ ' ' + message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ ' <image>\n' }}{% else %}{{ ' ' + part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' assistant:' }}{% endif %}"
)


def build_processor(
    texts: Iterable[str], image_size: int, patch_size: int, mean: float, std: float, apart: str = r"\n|\d|[^\w\s]"
) -> LlavaProcessor:
    """A processor that knows the words of `texts`, and those of the chat.

    Args:
        apart: what is a word of its own wherever it stands; else spaces divide words.
    """
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex(apart), "isolated")]
    )
    words = {"user", "assistant", ":", "?", "\n"}
    words |= {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {word: i for i, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=1024,
    )
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=[mean] * 3,
        image_std=[std] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=fast,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
