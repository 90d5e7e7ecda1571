"""The whole river on one laptop: scenes -> captions -> shards -> CAFT -> report -> release.

Each stage is the command that a cluster runs, in the environment that it belongs to. A demo that
was interrupted goes on with the stage that it was in; one that was finished starts afresh.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaption.common.config import UserError, load_config, run_command
from recaption.common.files import atomic_write
from recaption.common.progress import format_seconds


@dataclass
class DemoConfig:
    output: str = "demo"  # folder of everything that the demo makes
    config: str = "configs/demo.yaml"  # the training run
    recaption_python: str = ".venv-recaption/bin/python"  # Python of the captioner's environment
    num_train: int = 4000  # scenes to train on
    num_val: int = 500  # scenes to evaluate on, which training never sees
    num_ranks: int = 2
    # further keys of the training run, as key=value
    train: list[str] | None = None


class Stages:
    """Runs the demo's stages once each and remembers how long they took."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        self.seconds: dict[str, float] = {}
        if self._path.exists():
            self.seconds = json.loads(self._path.read_text())

    def run(
        self, name: str, *command: str | Path, environment: dict[str, str] | None = None
    ) -> None:
        if name in self.seconds:
            print(f"\n== {name}: done before ({format_seconds(self.seconds[name])})", flush=True)
            return
        words = [str(word) for word in command]
        print(f"\n== {name}\n$ {' '.join(words)}", flush=True)
        started = time.monotonic()
        status = subprocess.run(words, env={**os.environ, **(environment or {})}).returncode
        if status != 0:
            raise UserError(f"the demo's stage {name!r} failed (exit status {status}), see above")
        self.seconds[name] = round(time.monotonic() - started, 1)
        with atomic_write(self._path) as path:
            path.write_text(json.dumps(self.seconds))


def main(argv: list[str]) -> None:
    config = load_config(DemoConfig, [argument for argument in argv if argument != "--json"])
    summary = demo(config)
    if "--json" in argv:
        print(json.dumps(summary))


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs all stages and returns what stands in ``summary.json``."""
    folder = Path(config.output)
    if (folder / "summary.json").exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder)
    shards, tables, run = folder / "shards", folder / "captions", folder / "run"
    report, release = run / "report" / "report.html", folder / "release"
    python = sys.executable

    for split, count in (("train", config.num_train), ("val", config.num_val)):
        stages.run(
            f"draw {split} scenes",
            *(python, "-m", "tools.make_scenes"),
            *(f"output={shards}", f"split={split}", f"num_scenes={count}"),
        )
    stages.run(
        "caption",
        *(config.recaption_python, "-m", "recaption", "run"),
        *(f"input={shards}", f"output={tables}"),
    )
    stages.run(
        "score captions",
        *(python, "-m", "tools.score_captions", f"tables={tables}", f"shards={shards}"),
        *("pattern=val-*", f"output={folder / 'captions.json'}"),
    )
    for split in ("train", "val"):
        stages.run(
            f"pack {split}",
            *(python, "-m", "recaption", "pack", f"shards={shards}/{split}-*.tar"),
            *(f"tables={tables}", f"output={folder / split}"),
        )
    stages.run(
        "train",
        *(Path(python).with_name("torchrun"), "--nproc-per-node", str(config.num_ranks)),
        *("-m", "pretrain", "train", config.config),
        *(f"run={run}", f"data.train={folder / 'train'}", *(config.train or [])),
        environment={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
    )
    stages.run(
        "evaluate",
        *(python, "-m", "pretrain", "evaluate"),
        *(f"checkpoint={run}", f"data={folder / 'val'}", f"num_samples={config.num_val}"),
    )
    stages.run("release", python, "-m", "pretrain", "release", f"run={run}", f"output={release}")

    evaluation = json.loads((run / "evaluation.json").read_text())
    captions = json.loads((folder / "captions.json").read_text())
    summary = {
        "seconds": round(sum(stages.seconds.values()), 1),
        "stages": stages.seconds,
        "num_images": config.num_train + config.num_val,
        **evaluation,
        "captioner_precision": captions["precision"],
        "captioner_recall": captions["recall"],
        "captioner_control_recall": captions["control_recall"],
        "report": str(report),
        "release": str(release),
    }
    with atomic_write(folder / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2))
    _print_summary(summary)
    return summary


def _print_summary(summary: dict[str, Any]) -> None:
    print("\n== done")
    for name, seconds in summary["stages"].items():
        print(f"  {name:<20}{format_seconds(seconds):>8}")


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
