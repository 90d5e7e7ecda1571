"""A compiler sees each tower as one graph."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from pretrain.models.image.hierarchical import HierarchicalEncoder
from pretrain.models.image.superpixels import SuperpixelConfig
from pretrain.models.registry import build_model
from pretrain.models.text import part
from tests.pretrain.published import CAFT, FLAIR, packed


def num_graph_breaks(function, *arguments):
    torch._dynamo.reset()
    explanation = torch._dynamo.explain(function)(*arguments)
    return explanation.graph_break_count, explanation.break_reasons


@pytest.mark.parametrize("superpixels", ["slic", "spixelfcn", "grid"])
def test_hierarchical_image_tower(superpixels):
    config = replace(CAFT.image.hierarchical, superpixels=SuperpixelConfig(superpixels))
    model = HierarchicalEncoder(config, 224).train()
    assert num_graph_breaks(model, torch.randn(2, 3, 224, 224)) == (0, [])


def test_vision_transformer():
    assert num_graph_breaks(build_model(FLAIR).train().image, torch.randn(2, 3, 64, 64)) == (0, [])


def test_text_towers_as_on_a_gpu(monkeypatch):
    """Texts as they come: by length, the numbers of texts of each length go through the host."""

    def masked_varlen_attn(query, key, value, query_offsets, key_offsets, *_, window_size):
        """Traceable, and of the right shapes; that it is right is tested elsewhere."""
        q, k, v = (x.transpose(0, 1) for x in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v).transpose(0, 1)

    monkeypatch.setattr(part, "has_variable_length_kernel", lambda *_: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", masked_varlen_attn)
    model = build_model(CAFT).train()
    texts = torch.randint(1, 500, (2, 8, 16))
    texts[:, :, 9] = 511
    with torch.autocast("cpu", torch.bfloat16):
        assert num_graph_breaks(model.encode_text, packed(texts)) == (0, [])
