"""LLaVA-1.5 and its relatives on Llama, Vicuna, Mistral and Qwen2 decoders; Pixtral in this form, too."""

from seeless.core.family import Family

FAMILY = Family(
    title="LLaVA-1.5",
    model_types=("llava",),
    sizes="image_sizes",
    checkpoints={
        "liuhaotian/llava-v1.5-7b": "llava-hf/llava-1.5-7b-hf",
        "liuhaotian/llava-v1.5-13b": "llava-hf/llava-1.5-13b-hf",
    },
)
