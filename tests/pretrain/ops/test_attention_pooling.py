import pytest
import torch

from pretrain.ops.attention_pooling import AttentionPooling
from pretrain.release.importers.keys import attention_pooling_keys, rename
from recaption.common.config import ConfigError

KEYS = list(attention_pooling_keys("", ""))


@pytest.mark.parametrize("case", ["attn_pool", "attn_pool_long"])
def test_equals_published_pooling(case, golden, assert_gradients):
    reference = golden(f"caft/{case}")
    pooling = AttentionPooling(reference.hyper["D"])
    pooling.load_state_dict(rename(reference.group("param."), KEYS))
    query = reference["in.query"].requires_grad_()
    tokens = reference["in.kv"].requires_grad_()

    pooled = pooling(query, tokens)

    torch.testing.assert_close(pooled, reference["out.pooled"], rtol=1e-4, atol=1e-5)
    weights = pooling.weights(query, tokens)
    torch.testing.assert_close(weights, reference["mid.attn_weights"], rtol=1e-4, atol=1e-5)
    (reference["in.w"] * pooled).sum().backward()
    torch.testing.assert_close(query.grad, reference["grad.query"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(tokens.grad, reference["grad.kv"], rtol=1e-3, atol=1e-5)
    assert_gradients(pooling, rename(reference.group("grad.param."), KEYS))


def test_width_must_divide_into_heads():
    with pytest.raises(ConfigError, match="multiple of 8"):
        AttentionPooling(36)
