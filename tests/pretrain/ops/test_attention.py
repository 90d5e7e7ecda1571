import pytest
import torch
from torch import nn

from pretrain.ops.attention import Attention
from pretrain.ops.packing import pack_as_they_come, pack_by_length

LENGTHS = [5, 2, 7, 5, 1, 2]


@pytest.fixture
def texts():
    torch.manual_seed(0)
    return [torch.randn(length, 24) for length in LENGTHS]


def test_packings_say_what_lies_where(texts):
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    by_length, as_they_come = pack_by_length(offsets), pack_as_they_come(offsets, 22, 10)
    assert by_length.groups == [(1, 1), (2, 2), (2, 5), (1, 7)]
    assert by_length.max_length == 7
    for packing in (by_length, as_they_come):
        rows = packing.arrange(torch.cat(texts))
        ends = packing.restore(rows[packing.ends])
        assert torch.equal(ends, torch.stack([text[-1] for text in texts]))
        places = torch.cat([torch.arange(length) for length in packing.offsets.diff().tolist()])
        assert torch.equal(packing.positions, places)
        assert packing.offsets[-1] == 22


@pytest.mark.parametrize("kind", ["by length", "as they come"])
def test_packed_equals_one_text_at_a_time(kind, texts, monkeypatch):
    attention = Attention(24, 3)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    packing = pack_by_length(offsets)
    if kind == "as they come":
        packing = pack_as_they_come(offsets, 22, 10)
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen_attn)
    rows = packing.arrange(torch.cat(texts))

    norm = nn.LayerNorm(24)
    packed = attention(rows, norm, packing=packing)
    ends = attention.for_queries(rows[packing.ends], rows, norm, packing)

    alone = [attention(text.unsqueeze(0), norm, causal=True)[0] for text in texts]
    order = torch.arange(22) if packing.order is None else packing.order
    torch.testing.assert_close(packed, torch.cat(alone)[order])
    expected = torch.stack([text[-1] for text in alone])
    torch.testing.assert_close(packing.restore(ends), expected)


def plain_varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size):
    """What torch documents of its kernel, which runs on GPUs only."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    mixed = []
    for text in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[text] : cu_seq_q[text + 1]]
        k, v = (x[cu_seq_k[text] : cu_seq_k[text + 1]] for x in (key, value))
        assert len(q) <= max_q and len(k) <= max_k
        scores = torch.einsum("qhc,khc->hqk", q, k) / q.shape[2] ** 0.5
        if window_size == (-1, 0):
            hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(hidden, -torch.inf)
        else:
            assert window_size == (-1, -1)
        mixed.append(torch.einsum("hqk,khc->qhc", scores.softmax(dim=2), v))
    return torch.cat(mixed)
