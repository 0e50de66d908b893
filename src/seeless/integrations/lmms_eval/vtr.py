"""The models that PriorTR's commands name: its strategies, argument names and defaults on any supported checkpoint."""

from seeless.integrations.lmms_eval.arguments import Door
from seeless.integrations.lmms_eval.model import SeelessLM, SeelessLMChat


class LlavaVTR(SeelessLM):
    """`--model llava_vtr`, simple interface."""

    door = Door("priortr", vtr=True)


class LlavaVTRChat(SeelessLMChat):
    """`--model llava_vtr`, chat interface."""

    door = LlavaVTR.door


class InternVLVTR(SeelessLM):
    """`--model internvl_vtr`, simple interface; nothing is dropped unless a strategy is named."""

    door = Door("baseline", vtr=True, defaults={"max_num": 6})


class InternVLVTRChat(SeelessLMChat):
    """`--model internvl_vtr`, chat interface."""

    door = InternVLVTR.door


class Qwen2VLVTR(SeelessLM):
    """`--model qwen2_vl_vtr`, simple interface."""

    door = Door("priortr", vtr=True, defaults={"min_pixels": 3136, "max_pixels": 602112})


class Qwen2VLVTRChat(SeelessLMChat):
    """`--model qwen2_vl_vtr`, chat interface."""

    door = Qwen2VLVTR.door


class Qwen3VLVTR(SeelessLM):
    """`--model qwen3_vl_vtr`, simple interface."""

    door = Door("priortr", vtr=True, defaults={"min_pixels": 256 * 28 * 28, "max_pixels": 1605632})


class Qwen3VLVTRChat(SeelessLMChat):
    """`--model qwen3_vl_vtr`, chat interface."""

    door = Qwen3VLVTR.door


class VideoLlavaVTR(SeelessLM):
    """`--model video_llava_vtr`, simple interface."""

    door = Door("fastv", vtr=True, defaults={"max_frames": 8})


class VideoLlavaVTRChat(SeelessLMChat):
    """`--model video_llava_vtr`, chat interface."""

    door = VideoLlavaVTR.door
