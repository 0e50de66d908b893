"""A processor that cannot take every picture."""


class Refusing:
    """A processor that refuses tall pictures, as Qwen's does."""

    def __init__(self, own):
        self.own = own

    def __getattr__(self, name):
        return getattr(self.own, name)

    def __call__(self, images=None, **options):
        if any(image.height > 200 * image.width for own in images or [] for image in own):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return self.own(images=images, **options)
