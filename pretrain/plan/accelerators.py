"""What accelerators can do at best, as their makers say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    """Dense products of matrices, without sparsity."""

    bf16_flops: float
    """Operations a second on tensor cores, sums in fp32."""
    fp32_flops: float
    """Operations a second in full fp32, torch's default for products of matrices (not TF32)."""
    memory: float
    """Bytes."""


#: From NVIDIA's data sheets: A100 80GB SXM, H100 SXM, H200 SXM, L40S. Theirs halved where they are
#: told "with sparsity".
ACCELERATORS = {
    "a100": Accelerator(312e12, 19.5e12, 80e9),
    "h100": Accelerator(989.4e12, 67e12, 80e9),
    "h200": Accelerator(989.4e12, 67e12, 141e9),
    "l40s": Accelerator(362e12, 91.6e12, 48e9),
}
#: The share of these that large trainings have been seen to reach: 15 to 17 % by
#: open_clip's ViT-B/16 and L/14 on 350 to 400 A100s. An assumption, to be measured.
ASSUMED_MFU = 0.15
