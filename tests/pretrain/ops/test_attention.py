import torch

from pretrain.ops.attention import Attention, sort_by_length


def test_packed_equals_one_text_at_a_time():
    torch.manual_seed(0)
    attention = Attention(24, 3)
    lengths = [5, 2, 7, 5, 1, 2]
    texts = [torch.randn(length, 24) for length in lengths]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    order, last, groups = sort_by_length(offsets)
    assert groups == [(1, 1), (2, 2), (2, 5), (1, 7)]

    packed = attention(torch.cat(texts)[order], groups=groups)

    for place, text in zip(last.tolist(), texts, strict=True):
        alone = attention(text.unsqueeze(0), causal=True)[0]
        torch.testing.assert_close(packed[place + 1 - len(text) : place + 1], alone)
