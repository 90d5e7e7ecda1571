from dataclasses import replace

import pytest
import torch

import pretrain
from pretrain.inference import load_for_inference
from pretrain.models.image.hierarchical import HierarchicalEncoder
from pretrain.models.image.positions import resize_learned, sincos_positions
from recaption.common.config import ConfigError
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run


def test_cells_of_a_finer_grid_stand_between_those_of_the_table():
    coarse, fine = sincos_positions(4, 16), sincos_positions(8, 16, table_side=4)
    assert torch.equal(sincos_positions(4, 16, table_side=4), coarse)
    assert fine.shape == (64, 16)
    # Three times as many cells: the middle one of each three is one of the table.
    finer = sincos_positions(12, 16, table_side=4).unflatten(0, (12, 12))
    torch.testing.assert_close(finer[1::3, 1::3], coarse.unflatten(0, (4, 4)))
    with pytest.raises(ConfigError, match="multiple of 4"):
        sincos_positions(4, 18)


def test_a_learned_table_keeps_its_class_token_and_its_shape():
    table = torch.cat(
        [torch.full((1, 1, 3), 7.0), torch.arange(16.0).view(1, 16, 1).expand(1, 16, 3)], 1
    )
    larger = resize_learned(table, 12, num_leading=1)
    assert larger.shape == (1, 145, 3)
    assert (larger[:, 0] == 7).all()
    middle = larger[0, 1:, 0].view(12, 12)[1::3, 1::3]
    torch.testing.assert_close(middle, torch.arange(16.0).view(4, 4), atol=0.2, rtol=0)
    assert resize_learned(table, 4, num_leading=1) is table


@pytest.mark.parametrize("config", [TINY, TINY_CLIP], ids=["caft", "clip"])
def test_a_model_sees_images_of_another_size(config, tmp_path):
    run = write_run(tmp_path, config)
    trained = load_for_inference(run)
    size = trained.config.model.image.size
    model = pretrain.load(run, image_size=2 * size)
    assert model.inference.config.model.image.size == 2 * size
    image = torch.randn(1, 3, 2 * size, 2 * size)
    larger = model.inference.model.encode_image(image)
    smaller = trained.model.encode_image(torch.nn.functional.avg_pool2d(image, 2))
    assert larger.pooled.shape == smaller.pooled.shape
    assert larger.pooled.isfinite().all()
    before, after = trained.model.image, model.inference.model.image
    if config == TINY:
        side = size // before.stride
        assert torch.equal(before.positions, sincos_positions(side, before.width))
        expected = sincos_positions(2 * side, before.width, table_side=side)
        assert torch.equal(after.positions, expected)
    else:
        assert torch.equal(after.positions, resize_learned(before.positions, 8, num_leading=1))
        assert torch.equal(after.cls, before.cls)


def test_an_image_size_must_divide_into_cells(tmp_path):
    run = write_run(tmp_path)
    with pytest.raises(
        ConfigError, match=r"image size 60 is not a multiple of superpixels\.cell_size"
    ):
        pretrain.load(run, image_size=60)
    encoder = load_for_inference(run).config.model.image.hierarchical
    with pytest.raises(ConfigError, match="image size 30 is not a multiple"):
        HierarchicalEncoder(replace(encoder, position_size=30), 32)
