"""LLaVA-NeXT (1.6): a base crop and up to several tiles, a newline token after every row of tiles' patches."""

from seeless.core.family import Family

FAMILY = Family(
    title="LLaVA-NeXT",
    model_types=("llava_next",),
    packer="pack_image_features",
    checkpoints={
        "liuhaotian/llava-v1.6-vicuna-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
        "liuhaotian/llava-v1.6-vicuna-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
        "liuhaotian/llava-v1.6-mistral-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
        "liuhaotian/llava-v1.6-34b": "llava-hf/llava-v1.6-34b-hf",
    },
    note="keep counts per crop for fastervlm, vispruner and pool (five crops make 5 x keep tokens)",
)
