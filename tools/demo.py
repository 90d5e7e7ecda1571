"""The whole river on one laptop: scenes -> captions -> shards -> CAFT -> report -> release.

Each stage is the command that a cluster runs, in the environment that it belongs to. A demo that
was interrupted goes on with the stage that it was in; one that was finished starts afresh.
"""

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.data.captions import join_sentences
from pretrain.data.stream import read_samples
from recaption.common.config import UserError, keep_config, load_config, print_json, run_command
from recaption.common.files import atomic_write
from recaption.common.progress import format_seconds
from tools.stages import Stages, torchrun


@dataclass
class DemoConfig:
    output: str = "demo"  # folder of everything that the demo makes
    config: str = "configs/demo.yaml"  # the training run
    recaption_python: str = ".venv-recaption/bin/python"  # Python of the captioner's environment
    num_train: int = 4000  # scenes to train on
    num_test: int = 500  # scenes to evaluate on: none was trained on or chosen by
    num_ranks: int = 2
    train: list[str] = field(default_factory=list)  # further key=value for the training run


def main(argv: list[str]) -> None:
    config = load_config(DemoConfig, argv, __doc__)
    print_json(argv, demo(config))


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs all stages and returns what stands in ``summary.json``."""
    if not Path(config.recaption_python).exists():
        raise UserError(f"no {config.recaption_python}: run `make env`, or `make demo`")
    folder = Path(config.output)
    if (folder / "summary.json").exists() and (folder / "stages.json").exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keep_config(config, folder / "config.yaml", may_change=("output", "recaption_python"))
    stages = Stages(folder)
    shards, tables = folder / "shards", folder / "captions"
    run, release = folder / "run", folder / "release"
    python = sys.executable

    for split, count in (("train", config.num_train), ("test", config.num_test)):
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
    captions = stages.run(
        "score captions",
        *(python, "-m", "tools.score_captions", f"tables={tables}", f"shards={shards}", "--json"),
    )
    for split in ("train", "test"):
        stages.run(
            f"pack {split}",
            *(python, "-m", "recaption", "pack", f"shards={shards}/{split}-*.tar"),
            *(f"tables={tables}", f"output={folder / split}", "require=[long]"),
        )
    stages.run(
        "train",
        *torchrun(config.num_ranks),
        *("pretrain", "train", config.config),
        *(f"run={run}", f"data.train={folder / 'train'}", *config.train),
    )
    evaluation = stages.run(
        "evaluate",
        *(python, "-m", "pretrain", "evaluate", "--json"),
        *(f"checkpoint={run}", f"data={folder / 'test'}", f"num_samples={config.num_test}"),
    )
    stages.run("release", python, "-m", "pretrain", "release", f"run={run}", f"output={release}")

    example = next(read_samples(folder / "test"))
    example.image.save(folder / "example.png")
    summary = {
        "seconds": round(sum(stages.seconds.values()), 1),
        "stages": stages.seconds,
        **evaluation,
        "num_images": config.num_train + config.num_test,
        "num_evaluated": evaluation["num_images"],
        "captioner_precision": captions["precision"],
        "captioner_recall": captions["recall"],
        "captioner_control_recall": captions["control_recall"],
        "report": evaluation["report"],
        "release": str(release),
        "example": {
            "image": str(folder / "example.png"),
            "caption": join_sentences(example.captions["long"]),
        },
    }
    with atomic_write(folder / "summary.json") as path:
        path.write_text(json.dumps(summary, indent=2) + "\n")
    print(format_summary(summary))
    return summary


def format_summary(summary: dict[str, Any]) -> str:
    """What was reached, and where to look and what to type next."""
    example = summary["example"]
    share = {name: f"{value:.1%}" for name, value in summary.items() if isinstance(value, float)}
    gain = summary["t2i_r1"] / summary["chance_r1"]
    return "\n".join(
        [
            f"\n== done in {format_seconds(summary['seconds'])}",
            f"captions    precision {share['captioner_precision']} and recall "
            f"{share['captioner_recall']} of coloured things; against another scene "
            f"{share['captioner_control_recall']}",
            f"retrieval   {summary['num_evaluated']} unseen scenes, R@1 {share['t2i_r1']} text to "
            f"image and {share['i2t_r1']} image to text; {gain:.0f} times chance",
            f"pointing    {share['pointing']} of the sentences' maps peak on the thing they name; "
            f"chance {share['pointing_chance']}",
            f"report      {summary['report']}",
            f"release     open it so, in {sys.executable}:\n",
            "    import pretrain",
            f"    model = pretrain.load({summary['release']!r})",
            f"    print(model.similarity({example['image']!r}, {example['caption']!r}))",
        ]
    )


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
