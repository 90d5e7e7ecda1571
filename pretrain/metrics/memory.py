"""Memory of this process and of its device."""

from pathlib import Path

import torch

_FIELDS = {"resident": "VmRSS", "peak": "VmHWM"}


def process_memory() -> dict[str, int]:
    """Bytes that this process holds in memory, now and at most; without its loader workers.

    Linux only: nothing elsewhere.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return {
        kind: int(values[field].removesuffix("kB")) * 1024
        for kind, field in _FIELDS.items()
        if field in values
    }


def accelerator_memory(device: torch.device) -> dict[str, int]:
    """Bytes of torch's allocator on a GPU: of tensors, held, and the most of tensors so far."""
    if device.type != "cuda":
        return {}
    return {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "peak": torch.cuda.max_memory_allocated(device),
    }
