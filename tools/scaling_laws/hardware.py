"""What the runs of a ladder are trained on, for its table."""

import platform
import re
from pathlib import Path

import torch

from tools.scaling_laws.ladder import LadderConfig

_CPUS = Path("/proc/cpuinfo")


def describe_hardware(config: LadderConfig, num_ranks: int) -> str:
    """The ranks that made the last step, and this machine's GPU or CPU; on Slurm, where other
    machines train, what is asked for."""
    ranks = f"{num_ranks} rank" + ("s" if num_ranks > 1 else "")
    if config.slurm:
        job = config.job
        gpus = f" x {job.gpus_per_node} GPUs" if job.gpus_per_node else ""
        return f"{ranks} on {job.nodes} nodes{gpus} of Slurm"
    if torch.cuda.is_available():
        return f"{ranks} on {torch.cuda.get_device_name()}"
    return f"{ranks} on {cpu_model()}"


def cpu_model() -> str:
    """As Linux names it; elsewhere the architecture."""
    names = re.findall(r"^model name\s*:\s*(.+)$", _read_cpus(), re.MULTILINE)
    return names[0].strip() if names else platform.machine()


def _read_cpus() -> str:
    return _CPUS.read_text() if _CPUS.exists() else ""
