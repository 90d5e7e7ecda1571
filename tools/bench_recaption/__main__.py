"""Images a second from tars to tables, against vLLM by itself on the same images.

    .venv-recaption/bin/python -m tools.bench_recaption [images=TARS] [key=value ...] [--json]

Both caption the same images with the tiny model, the same prompt and sampling, each in processes
of its own, one after the other. vLLM by itself (``LLM.generate``) gets all images decoded; ours
reads them from tars, decodes, filters, journals and writes tables. Start-up is in neither time. A
ratio is that of one turn; the figure is their median.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recaption.common.config import (
    UserError,
    check_at_least,
    load_config,
    print_json,
    run_command,
)
from recaption.shards import Shard, find_shards
from recaption.table import read_rows


@dataclass
class BenchConfig:
    images: str = ""  # a folder of tars; empty: generated pictures of 144 x 144 px
    num_images: int = 2000  # those of the tars are repeated if they are fewer
    num_images_a_tar: int = 1000
    max_tokens: int = 64  # a caption at most
    num_turns: int = 1
    settings: list[str] = field(default_factory=list)  # of `recaption run`, in quotes each
    raw: dict[str, Any] = field(default_factory=dict)  # arguments of vllm.LLM

    def __post_init__(self) -> None:
        for name in ("num_images", "num_images_a_tar", "max_tokens", "num_turns"):
            check_at_least(1, {name: getattr(self, name)})


def main(argv: list[str]) -> None:
    config = load_config(BenchConfig, argv, __doc__)
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench_recaption-") as name:
        folder = Path(name)
        write_tars(config, folder / "in")
        for number in range(config.num_turns):
            order = [raw, ours] if number % 2 == 0 else [ours, raw]
            done = {measure.__name__: measure(config, folder, number) for measure in order}
            rates = {which: config.num_images / seconds for which, (seconds, _) in done.items()}
            (_, captions), (_, expected) = done["ours"], done["raw"]
            equal = sum(captions[key] == expected[key] for key in expected) / len(expected)
            rates["ratio"] = rates["ours"] / rates["raw"]
            turns.append(rates | {"equal_captions": equal})
            print(
                f"recaption run {rates['ours']:.1f} images/s, vLLM by itself {rates['raw']:.1f}: "
                f"{rates['ratio']:.3f}; {equal:.1%} of the captions are equal",
                flush=True,
            )
    figures: dict[str, Any] = {
        "ratio_vs_raw_vllm": statistics.median(turn["ratio"] for turn in turns),
        "images_per_second": statistics.median(turn["ours"] for turn in turns),
        "images_per_second_raw": statistics.median(turn["raw"] for turn in turns),
        "equal_captions": min(turn["equal_captions"] for turn in turns),
        "num_images": config.num_images,
        "load": os.getloadavg()[0],
        "turns": turns,
    }
    print_json(argv, figures)


def raw(config: BenchConfig, folder: Path, turn: int) -> tuple[float, dict[str, str]]:
    """Seconds of vLLM by itself, and its captions by key."""
    result = folder / f"raw-{turn}.json"
    arguments = [str(folder / "in"), str(config.max_tokens), json.dumps(config.raw), str(result)]
    _output_of([sys.executable, "-m", "tools.bench_recaption.raw", *arguments])
    answer = json.loads(result.read_text())
    return answer["seconds"], answer["captions"]


def ours(config: BenchConfig, folder: Path, turn: int) -> tuple[float, dict[str, str]]:
    """Seconds of ``recaption run`` without the engine's start, and its captions by key."""
    output = folder / f"out-{turn}"
    command = captioning_command(folder / "in", output, config.max_tokens, config.settings)
    printed = _output_of(command)
    figures = json.loads(printed.splitlines()[-1])
    rows = [row for path in find_shards(str(folder / "in")) for row in read_rows(output, path.stem)]
    return figures["seconds"], {
        row.key: row.raw_caption or row.caption or row.reason or "" for row in rows
    }


def captioning_command(
    tars: Path, output: Path, max_tokens: int, settings: Sequence[str]
) -> list[str]:
    """``recaption run`` with the tiny model, of which the last line is its figures as JSON."""
    return [
        *(sys.executable, "-m", "recaption", "run", "configs/recaption/tiny.yaml"),
        *(f"input={tars}", f"output={output}"),
        f"prompts.long.sampling.max_tokens={max_tokens}",
        "filters.keep_cut_off=true",
        *settings,
        "--json",
    ]


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise UserError(f"{' '.join(command[:4])} failed:\n{tail}")
    return done.stdout


def write_tars(config: BenchConfig, folder: Path) -> None:
    """``num_images`` images under keys of their own, each with an alt text."""
    folder.mkdir(parents=True)
    pictures = _read_pictures(config.images, config.num_images) if config.images else _draw(200)
    for number in range(0, config.num_images, config.num_images_a_tar):
        with tarfile.open(folder / f"{number // config.num_images_a_tar:05}.tar", "w") as tar:
            for index in range(number, min(number + config.num_images_a_tar, config.num_images)):
                members = {"jpg": pictures[index % len(pictures)], "txt": b"a picture"}
                for extension, content in members.items():
                    info = tarfile.TarInfo(f"{index:06}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def _read_pictures(images: str, num_images: int) -> list[bytes]:
    pictures: list[bytes] = []
    for path in find_shards(images):
        shard = Shard(path)
        members = [sample.image for sample in shard.index.samples if sample.image is not None]
        pictures += [shard.read(member) for member in members[: num_images - len(pictures)]]
        shard.close()
    return pictures


def _draw(num_pictures: int, side: int = 144) -> list[bytes]:
    """Pictures of coarse blocks, as JPEG."""
    pictures = []
    for seed in range(num_pictures):
        blocks = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(blocks).resize((side, side)).save(buffer, "JPEG", quality=90)
        pictures.append(buffer.getvalue())
    return pictures


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
