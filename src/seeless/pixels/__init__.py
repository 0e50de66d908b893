"""From files, addresses and Pillow images to the pixels a model sees: one way for every command.

Whatever comes in, what goes out is upright 8-bit RGB: `load_image` for a picture's source, `to_rgb` for a Pillow image,
`read_video` for a video file. docs/pixels.md says what happens to which kind.
"""

from seeless.pixels.errors import UnreadableImage, UnreadableVideo
from seeless.pixels.images import load_image
from seeless.pixels.kinds import is_animation, is_video
from seeless.pixels.rgb import to_rgb
from seeless.pixels.sources import is_inline, local_file
from seeless.pixels.videos import Video, read_video, spread
from seeless.pixels.whole import whole_pictures

__all__ = [
    "UnreadableImage",
    "UnreadableVideo",
    "Video",
    "is_animation",
    "is_inline",
    "is_video",
    "load_image",
    "local_file",
    "read_video",
    "spread",
    "to_rgb",
    "whole_pictures",
]
