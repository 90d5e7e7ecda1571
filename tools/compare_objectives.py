"""CAFT against CLIP with towers of the same size: at equal steps, and at equal wall-clock.

For each seed three runs, one after the other on the same ranks: CAFT; CLIP for as many steps; CLIP
for as long as CAFT took. Each is evaluated on the same images and captions. A run's minutes are its
steps at their median speed. Run it on a machine that does nothing else; it goes on where it was
interrupted.
"""

import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.metrics import METRICS, read_metrics
from recaption.common.config import keep_config, load_config, print_json, run_command
from recaption.common.files import atomic_write
from tools.stages import Stages, torchrun

CLIP_FOR_AS_LONG = "clip, equal time"


@dataclass
class CompareConfig:
    train: str  # folder of training shards
    val: str  # folder of shards to evaluate on
    output: str  # folder of the runs and of comparison.json
    caft: str = "configs/scenes_caft.yaml"  # CAFT's training run
    clip: str = "configs/scenes_clip.yaml"  # CLIP's training run
    num_steps: int = 300  # of CAFT, and of CLIP at equal steps
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    num_ranks: int = 2
    num_samples: int = 1000  # to evaluate on
    overrides: list[str] = field(default_factory=list)  # key=value for every training run


def main(argv: list[str]) -> None:
    config = load_config(CompareConfig, argv, __doc__)
    comparison = compare(config)
    print(format_table(comparison))
    print_json(argv, comparison)


def compare(config: CompareConfig) -> dict[str, Any]:
    """Runs all and returns what stands in ``comparison.json``: a row for each run."""
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    keep_config(config, output / "config.yaml", may_change=("output", "seeds"))
    stages = Stages(output)
    rows = []
    for seed in config.seeds:
        caft = _train_and_evaluate(config, stages, "caft", config.caft, seed, config.num_steps)
        clip = _train_and_evaluate(config, stages, "clip", config.clip, seed, config.num_steps)
        num_steps = round(config.num_steps * caft["step_seconds"] / clip["step_seconds"])
        longer = _train_and_evaluate(config, stages, CLIP_FOR_AS_LONG, config.clip, seed, num_steps)
        rows += [caft, clip, longer]
        comparison = {"train": config.train, "val": config.val, "runs": rows}
        with atomic_write(output / "comparison.json") as path:
            path.write_text(json.dumps(comparison, indent=2))
    return comparison


def _train_and_evaluate(
    config: CompareConfig, stages: Stages, name: str, recipe: str, seed: int, num_steps: int
) -> dict[str, Any]:
    run = Path(config.output) / f"{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    stages.run(
        f"train {run.name}",
        *torchrun(config.num_ranks),
        *("pretrain", "train", recipe, f"run={run}", f"data.train={config.train}"),
        *(f"seed={seed}", f"train.num_steps={num_steps}", *config.overrides),
    )
    stages.run(
        f"evaluate {run.name}",
        *(sys.executable, "-m", "pretrain", "evaluate", f"checkpoint={run}"),
        *(f"data={config.val}", f"num_samples={config.num_samples}", "report=false"),
    )
    metrics = read_metrics(run / METRICS)
    samples_per_step = metrics[-1]["num_samples_seen"] / metrics[-1]["step"]
    speed = statistics.median(row["samples_per_second"] for row in metrics)
    return {
        "name": name,
        "seed": seed,
        "num_steps": num_steps,
        "step_seconds": samples_per_step / speed,
        "minutes": num_steps * samples_per_step / speed / 60,
        **_figures(json.loads((run / "evaluation.json").read_text())),
    }


def _figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures compared, of the score that the objective trained; its parts' stand below it."""
    retrieval = evaluation["retrieval"]
    by_score = {name: _recalls(column) for name, column in retrieval["columns"].items()}
    localisation = evaluation["localisation"] or {}
    return {
        **next(iter(by_score.values())),
        "chance_r1": retrieval["chance"]["text_to_image"]["r1"],
        **{
            name: localisation.get(name)
            for name in ("pointing", "pointing_other_sentence", "pointing_chance")
        },
        "by_score": by_score,
    }


def _recalls(column: dict[str, Any]) -> dict[str, float]:
    return {
        f"{short}_{recall}": column[way][recall]
        for short, way in (("t2i", "text_to_image"), ("i2t", "image_to_text"))
        for recall in ("r1", "r5")
    }


_SHARES = ("t2i_r1", "t2i_r5", "i2t_r1", "i2t_r5", "pointing", "pointing_other_sentence")


def format_table(comparison: dict[str, Any]) -> str:
    """Mean over the seeds and the range between them, for each way of training."""
    lines = [f"{'':18}{'steps':>7}{'min':>7}" + "".join(f"{name:>25}" for name in _SHARES)]
    for name in dict.fromkeys(row["name"] for row in comparison["runs"]):
        rows = [row for row in comparison["runs"] if row["name"] == name]
        steps = statistics.mean(row["num_steps"] for row in rows)
        minutes = statistics.mean(row["minutes"] for row in rows)
        cells = [_mean_and_range([row[share] for row in rows]) for share in _SHARES]
        lines.append(f"{name:18}{steps:7.0f}{minutes:7.1f}" + "".join(f"{c:>25}" for c in cells))
    first = comparison["runs"][0]
    chance = f"chance: R@1 {first['chance_r1']:.2%}"
    if first["pointing_chance"] is not None:
        chance += f", pointing {first['pointing_chance']:.1%}"
    return "\n".join([*lines, chance])


def _mean_and_range(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.mean(known):.1%} ({min(known):.1%}-{max(known):.1%})"


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
