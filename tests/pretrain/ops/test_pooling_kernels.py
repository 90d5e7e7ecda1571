"""The kernels are compiled, without a GPU, for one of the smaller ones."""

import os

import pytest
import torch

from pretrain.objectives.comparison import MAX_FUSED_TOKENS, fits_fused_kernels
from pretrain.ops.attention_pooling import KeysValues

#: Bytes of shared memory that a program may have on GPUs of capability 8.6 and 8.9.
SHARED_MEMORY = 99 * 2**10
SIZES = {"HEADS": 8, "CHANNELS": 64, "ROWS": 16, "TOKENS": MAX_FUSED_TOKENS, "PADDED": 64}
FLOATS, NUMBERS = "*fp32", {"num_queries": "i32", "num_tokens": "i32", "temperature": "fp32"}


@pytest.mark.parametrize(
    ("name", "pointers", "numbers", "constants"),
    [
        ("attend", "queries chosen keys values mixed", NUMBERS, SIZES),
        (
            "attend_backward",
            "queries chosen keys values grad_mixed grad_pairs grad_keys grad_values",
            NUMBERS,
            SIZES,
        ),
        (
            "pair_loss",
            "pooled directions chosen sign scale bias grad_loss out grad_pairs grad_logits",
            {"num_pairs": "i32", "width": "i32", "eps": "fp32"},
            {"ROWS": 16, "COLUMNS": 128, "BACKWARD": True},
        ),
    ],
)
def test_compiles_and_fits(name, pointers, numbers, constants):
    triton = pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("interpreted kernels are not compiled")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pretrain.ops import pooling_kernels

    types = {p: "*i64" if p == "chosen" else FLOATS for p in pointers.split()} | numbers
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(getattr(pooling_kernels, name), signature, constexprs=constants)
    kernel = triton.compile(source, target=GPUTarget("cuda", 86, 32))
    assert kernel.metadata.shared <= SHARED_MEMORY


def test_more_tokens_go_the_other_way():
    def image(num_tokens):
        return KeysValues(*torch.empty(2, 1, 8, num_tokens + 1, 4, device="meta"))

    assert not fits_fused_kernels(image(64))  # not on a GPU

    class OnGpu(torch.Tensor):
        is_cuda = True

    for num_tokens, fits in ((64, True), (MAX_FUSED_TOKENS, True), (196, False)):
        keys = image(num_tokens).keys.as_subclass(OnGpu)
        assert fits_fused_kernels(KeysValues(keys, keys)) == fits
