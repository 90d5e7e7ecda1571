"""Patches of open_clip's towers."""

from pathlib import Path

import open_clip
import torch
from PIL import Image

from pretrain.evaluate.open_clip_encoders import load_open_clip
from pretrain.evaluate.open_clip_patches import encode_with_patches, has_patches
from tests.pretrain.evaluate.benchmarks.models import write_open_clip


def test_patches_lie_where_they_look(tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    encoders = load_open_clip(str(config), weights, torch.device("cpu"))
    dark = Image.new("RGB", (32, 32))
    spot = dark.copy()
    spot.paste((255, 255, 255), (8, 16, 16, 24))  # the patch in row 2, column 1
    images = encoders.encode_images([encoders.preprocess(picture) for picture in (dark, spot)])
    assert images.tokens is not None
    moved = (images.tokens[1] - images.tokens[0]).norm(dim=1)
    assert moved.argmax() == 4 * 2 + 1
    sentence = images.tokens[1:, [9]]  # as if a sentence said just this
    for maps in (
        encoders.localise(images[1:], sentence),
        encoders.compare_places(images[1:], sentence),
    ):
        assert maps is not None
        assert maps.shape == (1, 1, 32, 32)
        assert (maps[0, 0] == maps.max()).nonzero().amin(dim=0).tolist() == [16, 8]
        assert (maps[0, 0] == maps.max()).sum() == 64


def test_image_features_are_open_clip_s(tmp_path: Path) -> None:
    config, _ = write_open_clip(tmp_path)
    model = open_clip.create_model(config.stem).eval()
    pixels = torch.rand(2, 3, 32, 32)
    pooled, _ = encode_with_patches(model, pixels)
    with torch.inference_mode():
        torch.testing.assert_close(pooled, model.encode_image(pixels))
    assert has_patches(model)
    model.visual.pool_type = "avg"
    assert not has_patches(model)
    model.visual = torch.nn.Identity()
    assert not has_patches(model)
