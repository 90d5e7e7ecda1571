"""Peak memory of `recaption run` for few and for many images.

    .venv-recaption/bin/python -m tools.bench_recaption.memory [images=TARS] [key=value ...]

The memory is that of the worker and all processes below it, what they share counted once (PSS),
looked at once a second while the tiny model writes short captions.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from recaption.common.config import (
    ConfigError,
    UserError,
    check_at_least,
    load_config,
    print_json,
    run_command,
)
from recaption.engine.vllm_processes import memory_of_all
from tools.bench_recaption.__main__ import BenchConfig, captioning_command, write_tars

_INTERVAL = 1.0  # seconds


@dataclass
class MemoryConfig:
    images: str = ""  # a folder of tars; empty: generated pictures of 144 x 144 px
    num_images: list[int] = field(default_factory=lambda: [2000, 20000])  # of each run
    num_images_a_tar: int = 1000
    max_tokens: int = 8  # a caption at most: it is not captions that are measured
    settings: list[str] = field(default_factory=list)  # of `recaption run`, in quotes each

    def __post_init__(self) -> None:
        if len(self.num_images) < 2:
            raise ConfigError("num_images: give two numbers or more, such as [2000,20000]")
        for number in self.num_images:
            check_at_least(1, {"num_images": number})


def main(argv: list[str]) -> None:
    config = load_config(MemoryConfig, argv, __doc__)
    peaks: dict[str, float] = {}
    for num_images in config.num_images:
        peak, rate = peak_memory(config, num_images)
        peaks[str(num_images)] = peak
        print(f"{num_images:,} images: {peak:.3f} GiB at most, {rate:.1f} images/s", flush=True)
    first, *_, last = peaks.values()
    print(f"growth: {last / first - 1:+.1%}")
    print_json(argv, {"peak_gib": peaks, "growth": last / first - 1})


def peak_memory(config: MemoryConfig, num_images: int) -> tuple[float, float]:
    """GiB at the highest of all looks, and images a second."""
    with tempfile.TemporaryDirectory(prefix="bench_recaption-") as name:
        folder = Path(name)
        tars = BenchConfig(config.images, num_images, config.num_images_a_tar)
        write_tars(tars, folder / "in")
        output = folder / "out"
        command = captioning_command(folder / "in", output, config.max_tokens, config.settings)
        with (folder / "printed").open("w") as printed, (folder / "errors").open("w") as errors:
            process = subprocess.Popen(command, stdout=printed, stderr=errors)
        worker, peak = psutil.Process(process.pid), 0.0
        while process.poll() is None:
            try:
                peak = max(peak, memory_of_all(worker))
            except psutil.NoSuchProcess:
                break  # it ended between two lines
            time.sleep(_INTERVAL)
        if process.wait():
            tail = "\n".join((folder / "errors").read_text().splitlines()[-20:])
            raise UserError(f"{' '.join(command[:4])} failed:\n{tail}")
        figures = json.loads((folder / "printed").read_text().splitlines()[-1])
    return peak, figures["images_per_second"]


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
