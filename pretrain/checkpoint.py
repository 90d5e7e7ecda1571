"""Checkpoints: written aside, renamed, then closed by a `COMPLETE` marker."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from pretrain.config import PretrainConfig
from pretrain.distributed.engine import Engine
from pretrain.distributed.ranks import Ranks
from recaption.common.config import UserError, check_unchanged
from recaption.common.files import read_json, sync

COMPLETE = "COMPLETE"
WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
STATE = "state.json"
#: In a run that goes on: how long it trains, how often it tells and saves, and where things lie.
MAY_CHANGE = (
    "train",
    "run",
    "data.train",
    "data.num_workers",
    "data.max_bad_share",
    "model.image.hierarchical.superpixels.spixelfcn.weights",
)


@dataclass
class TrainState:
    """What a resumed run needs besides the engine's own state."""

    step: int  # steps done
    num_samples_seen: int
    num_ranks: int
    stream: dict[str, Any]


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def complete_checkpoints(run: Path) -> list[Path]:
    """The run's complete checkpoints, oldest first; those cut off while being written are not."""
    folders = sorted((run / "checkpoints").glob("step-*"))
    return [folder for folder in folders if (folder / COMPLETE).is_file()]


def newest_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run.

    Raises:
        UserError: if there is none.
    """
    complete = complete_checkpoints(run)
    if not complete:
        raise UserError(f"{run} has no complete checkpoint (checkpoints/step-*/{COMPLETE})")
    return complete[-1]


def save_checkpoint(
    run: Path, engine: Engine, state: TrainState, ranks: Ranks, num_kept: int
) -> Path:
    """Saves weights, engine and train state; every rank must call this.

    `model.safetensors` holds all weights in fp32, so that a checkpoint can be evaluated and
    released without DeepSpeed and whatever the ZeRO stage was.
    """
    final = checkpoint_folder(run, state.step)
    aside = final.with_name(f".{final.name}.tmp")
    if ranks.is_first:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        aside.mkdir(parents=True)
    ranks.barrier()
    engine.save(aside)
    weights = engine.full_state_dict()
    if ranks.is_first:
        save_file(weights, aside / WEIGHTS)
        (aside / STATE).write_text(json.dumps(vars(state)))
    # The folder is listed only when nobody writes to it any more: a file that is being written
    # has another name until it is whole.
    ranks.barrier()
    # On disk before the marker is; each node can only answer for what its own ranks wrote.
    for path in (aside, *aside.rglob("*")):
        sync(path)
    ranks.barrier()
    if ranks.is_first:
        aside.rename(final)
        (final / COMPLETE).write_text("")
        for path in (final / COMPLETE, final, final.parent):
            sync(path)
        for old in complete_checkpoints(run)[:-num_kept]:
            # The marker goes first: a removal cut short leaves no checkpoint that looks whole.
            (old / COMPLETE).unlink()
            shutil.rmtree(old)
    ranks.barrier()
    return final


def resume(run: Path, config: PretrainConfig, engine: Engine, ranks: Ranks) -> TrainState | None:
    """Loads the newest complete checkpoint into the engine; None if the run has none.

    Raises:
        UserError: the checkpoint is of another configuration or number of ranks.
    """
    complete = complete_checkpoints(run)
    if not complete:
        return None
    check_unchanged(config, run / CONFIG, MAY_CHANGE)
    if not (complete[-1] / STATE).is_file():
        raise UserError(
            f"{complete[-1]} holds weights only, as an imported run does: it can be evaluated and "
            "released, not trained on"
        )
    state = TrainState(**read_json(complete[-1] / STATE))
    if state.num_ranks != ranks.world_size:
        raise UserError(
            f"{run} was trained on {state.num_ranks} ranks and cannot go on with "
            f"{ranks.world_size}: use as many, or another run folder"
        )
    engine.load(complete[-1])
    return state
