import pytest
import torch

from pretrain.models.text import part
from pretrain.models.text.part import PartTextConfig, PartTextEncoder
from pretrain.ops import attention
from pretrain.ops.attention import has_variable_length_kernel
from tests.pretrain.ops.test_attention import plain_varlen_attn

LENGTHS = [5, 2, 7, 5, 3, 2]


def features_and_gradients(encoder):
    tokens = torch.arange(sum(LENGTHS)) % 40
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    encoder.zero_grad()
    features = encoder(tokens, offsets)
    (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
    return features, {name: p.grad.clone() for name, p in encoder.named_parameters()}


def test_texts_as_they_come_give_the_same_as_texts_by_length(monkeypatch):
    """The way of GPUs, with torch's kernel replaced by what torch says of it."""
    torch.manual_seed(0)
    # In any precision but that of float32 the kernel is asked for.
    encoder = PartTextEncoder(PartTextConfig(24, 3, 2, 8, 40)).double()
    expected, gradients = features_and_gradients(encoder)
    monkeypatch.setattr(part, "has_variable_length_kernel", lambda *_: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", plain_varlen_attn)
    features, found = features_and_gradients(encoder)
    torch.testing.assert_close(features, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("precision", ["fp32", "autocast", "double"])
def test_the_kernel_is_asked_for_in_any_precision_but_float32(precision, monkeypatch):
    encoder = PartTextEncoder(PartTextConfig(24, 2, 2, 8, 40))
    if precision == "double":
        encoder.double()
    calls = []

    def counted(*arguments, **keywords):
        calls.append(arguments)
        return plain_varlen_attn(*arguments, **keywords)

    monkeypatch.setattr(part, "has_variable_length_kernel", lambda *_: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", counted)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        features_and_gradients(encoder)
    assert len(calls) == (0 if precision == "fp32" else 2)


@pytest.mark.parametrize(
    ("device", "head_width", "capability", "has_it"),
    [
        ("cuda", 64, (8, 0), True),
        ("cuda", 64, (7, 5), False),
        ("cuda", 12, (9, 0), False),
        ("cuda", 264, (9, 0), False),
        ("cpu", 64, (9, 0), False),
    ],
)
def test_where_the_fused_kernel_works(device, head_width, capability, has_it, monkeypatch):
    monkeypatch.setattr(attention.torch.cuda, "get_device_capability", lambda _: capability)
    assert has_variable_length_kernel(torch.device(device), head_width) == has_it


def test_padded_texts_give_the_same_as_packed_ones():
    torch.manual_seed(0)
    encoder = PartTextEncoder(PartTextConfig(24, 3, 2, 8, 40, activation="quick_gelu")).eval()
    texts = [
        torch.cat([torch.randint(39, (length - 1,)), torch.tensor([39])]) for length in LENGTHS
    ]
    padded = torch.zeros(len(texts), 8, dtype=torch.int64)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    expected = encoder(torch.cat(texts), torch.tensor([0, *LENGTHS]).cumsum(0))
    torch.testing.assert_close(encoder.encode_padded(padded), expected)
    torch.testing.assert_close(encoder.encode_padded(padded[1:2, :2]), expected[1:2])
