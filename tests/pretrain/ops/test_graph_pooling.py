import pytest
import torch

from pretrain.ops.graph_pooling import GraphPooling
from pretrain.release.importers.caft import graph_pooling_keys
from pretrain.release.importers.keys import rename
from recaption.common.config import ConfigError

KEYS = list(graph_pooling_keys("pool_block.", ""))


@pytest.mark.parametrize("case", ["masked", "nomask", "heavy_padding"])
def test_equals_published_pooling(case, golden, assert_gradients):
    reference = golden(f"caft/graph_pool_{case}")
    pooling = GraphPooling(reference.hyper["d_model"], reference.hyper["num_clusters"]).eval()
    pooling.load_state_dict(rename(reference.group("param."), KEYS))
    cls = reference["in.cls_token"].requires_grad_()
    tokens = reference["in.tokens"].requires_grad_()
    masked = None if reference.hyper["mask_is_None"] else reference["in.mask"]

    cls_out, pooled, logits = pooling(cls, tokens, masked)

    torch.testing.assert_close(logits, reference["out.logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled, reference["out.centroids"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cls_out, reference["out.cls_out"], rtol=1e-4, atol=1e-5)
    scalar = (
        (reference["in.w_centroids"] * pooled).sum()
        + (reference["in.w_cls"] * cls_out).sum()
        + (reference["in.w_logits"] * logits).sum()
    )
    scalar.backward()
    torch.testing.assert_close(cls.grad, reference["grad.cls_token"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(tokens.grad, reference["grad.tokens"], rtol=1e-3, atol=1e-5)
    assert_gradients(pooling, rename(reference.group("grad.param."), KEYS))


def test_width_must_divide_into_heads():
    with pytest.raises(ConfigError, match="width 50"):
        GraphPooling(50, 4)
