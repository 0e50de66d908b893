"""Where the tokens of a packed image come from: as transformers packs it."""

import pytest
import torch
from transformers import CLIPVisionConfig, LlavaNextConfig
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from seeless.core.images import NO_PATCH
from seeless.integrations.vllm.layouts import PackedLayouts

SIDE = 4  # patches of a crop


@pytest.mark.parametrize("size", [(56, 112), (112, 56), (100, 90)])
def test_tiles_lie_as_transformers_packs_them(size):
    tower = CLIPVisionConfig(image_size=56, patch_size=14)
    config = LlavaNextConfig(vision_config=tower, image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]])
    crops = 5 if size == (100, 90) else 3

    class Packs:
        pass

    own = Packs()
    own.config = config

    def pack(config, newline, at, features, most):
        assert most is None and config is own.config
        packed = LlavaNextModel.pack_image_features(own, [features], at[None], "default", image_newline=newline)
        return packed[0][0] if isinstance(packed, tuple) else packed[0]

    data = {"image_sizes": torch.tensor([size]), "pixel_values": torch.zeros(crops, 3, 56, 56)}
    image = PackedLayouts(config, pack).of("image", data)
    numbers = torch.arange(crops * SIDE**2, dtype=torch.float64).view(crops, SIDE**2, 1)
    expected = pack(config, torch.tensor([float(NO_PATCH)], dtype=torch.float64), torch.tensor(size), numbers, None)
    found = torch.from_numpy(image.crop) * SIDE**2 + torch.from_numpy(image.patch)
    real = expected[:, 0] >= 0
    assert len(found) == len(expected) and torch.equal(found[real], expected[real, 0].long())
    assert (image.patch[~real.numpy()] == NO_PATCH).all()
