"""What a model of a kind is asked."""

from both import Request


def requests_of(kind: str) -> list[Request]:
    """Pictures tall and wide, several of them, several budgets for one; and videos where the model takes any."""
    qwen = kind.startswith("qwen")
    image = (
        "<IMG_CONTEXT>" if kind == "internvl" else "<|vision_start|><|image_pad|><|vision_end|>" if qwen else "<image>"
    )
    video = "<|vision_start|><|video_pad|><|vision_end|>" if qwen else "<video>"
    one, two = ((5, 140, 120),), ((1, 56, 190), (0, 180, 56))
    found = [
        Request(f"see {image} which digit?", one),
        Request(f"{image} how {image} many?", two),
        Request("how many?"),
    ]
    found += [Request(f"see {image} which digit?", one, keep=keep) for keep in (5, 0.5, 1.0)]
    if qwen or kind == "llava_onevision":
        frames = 6 if qwen else 4
        videos = ((3, 4, 84, 112), (2, frames, 140, 84))
        found += [
            Request(f"see {video} which digit?", videos=((3, 6, 84, 140),)),
            Request(f"{video} how {image} which {video} digit?", ((0, 80, 56),), videos, keep=0.3),
        ]
    return found
