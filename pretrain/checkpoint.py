"""Checkpoints: where they are, what they hold, and how a run goes on from one.

A checkpoint holds whole tensors by name in safetensors, whatever ZeRO stage and number of ranks
wrote it: it is evaluated, released and trained on with any other.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.distributed.engine import Engine
from pretrain.ema import Ema
from recaption.common.config import UserError, check_unchanged
from recaption.common.files import atomic_write, read_json

COMPLETE = "COMPLETE"
WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "ema.safetensors"
MOMENTS = "optimizer.safetensors"
CONFIG = "config.yaml"
STATE = "state.json"
ROLLBACKS = "rollbacks.json"
#: In a run that goes on: how long it trains, how often it tells and saves, how it is spread over
#: ranks, and where things lie. The number of images a step may not: see `find_checkpoint`.
MAY_CHANGE = (
    "train",
    "validation",
    "stability",
    "ranks",
    "preflight",
    "metrics",
    "run",
    "data.train",
    "data.num_workers",
    "data.batch_size",
    "engine.zero_stage",
    "engine.num_micro_batches",
    "engine.compile",
    "data.max_bad_share",
    "model.image.hierarchical.superpixels.spixelfcn.weights",
)
#: In a run that begins from another's checkpoint: its learning rate from there on, too.
MAY_CHANGE_IN_A_BRANCH = (
    *MAY_CHANGE,
    "optim.learning_rate",
    "optim.num_warmup_steps",
    "optim.schedule",
    "optim.num_decay_steps",
    "optim.final_share",
)


@dataclass
class TrainState:
    """What a resumed run needs besides the tensors."""

    step: int = 0  # steps done
    num_samples_seen: int = 0
    global_batch: int = 0  # images a step, of all ranks
    num_ranks: int | None = None  # that wrote it; None: older checkpoints do not say
    num_updates: int = 0  # steps whose gradient was taken
    num_skipped_steps: int = 0  # those whose gradient was not finite
    num_rollbacks: int = 0
    stream: dict[str, Any] = field(default_factory=dict)


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def run_folder(checkpoint: Path) -> Path:
    """The run that a `checkpoint_folder` is of."""
    return checkpoint.parent.parent


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


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


def last_checkpoint(run: Path, config: PretrainConfig) -> Path | None:
    """The run's newest complete checkpoint; before there is one, that of `train.begin_from`."""
    complete = complete_checkpoints(run)
    if complete:
        return complete[-1]
    return Path(config.train.begin_from) if config.train.begin_from else None


def find_checkpoint(
    run: Path, config: PretrainConfig, world_size: int
) -> tuple[TrainState, Path | None]:
    """Where an earlier attempt left off, or another run that this one begins from: its state and
    checkpoint; a new state if there is none.

    Raises:
        UserError: the run, or the other one, was begun with another configuration or other images
            a step.
    """
    global_batch = config.data.batch_size * world_size
    if (run / CONFIG).is_file():
        check_unchanged(config, run / CONFIG, MAY_CHANGE)
    checkpoint = last_checkpoint(run, config)
    if checkpoint is None:
        return TrainState(global_batch=global_batch), None
    if not complete_checkpoints(run):
        _check_branch(checkpoint, config)
    if not (checkpoint / STATE).is_file():
        raise UserError(
            f"{checkpoint} holds weights only, as an imported run does: it can be evaluated and "
            "released, not trained on"
        )
    state = read_state(checkpoint)
    if state.global_batch != global_batch:
        fitting, rest = divmod(state.global_batch, world_size)
        what_to_do = f"set data.batch_size={fitting}" if not rest else "use another number of ranks"
        raise UserError(
            f"{run_folder(checkpoint)} trains on {state.global_batch} images a step; "
            f"{world_size} ranks x data.batch_size={config.data.batch_size} are {global_batch}: "
            f"{what_to_do}, or another run folder"
        )
    for record in _rollbacks(run):
        if record["step"] == state.step and record["num_rollbacks"] > state.num_rollbacks:
            # It went back to here once, and on with other data.
            state.num_rollbacks, state.stream = record["num_rollbacks"], record["stream"]
    return state, checkpoint


def _check_branch(checkpoint: Path, config: PretrainConfig) -> None:
    """Raises: UserError: there is no such checkpoint, or its run is of another configuration."""
    what = f"train.begin_from={checkpoint}"
    if not (checkpoint / COMPLETE).is_file():
        raise UserError(
            f"{what} is no complete checkpoint (there is no {COMPLETE} in it): train.keep_steps of "
            "the run that it is of saves and keeps one"
        )
    if read_state(checkpoint).step >= config.train.num_steps:
        raise UserError(f"{what} leaves nothing of train.num_steps={config.train.num_steps}")
    check_unchanged(
        config,
        run_folder(checkpoint) / CONFIG,
        MAY_CHANGE_IN_A_BRANCH,
        "a run that begins from its checkpoint may change the schedule, no more",
    )


def read_state(checkpoint: Path) -> TrainState:
    return TrainState(**read_json(checkpoint / STATE))


def load_weights(checkpoint: Path, module: nn.Module) -> None:
    """All weights and buffers, into a module that no engine has spread yet."""
    module.load_state_dict(dict(SavedTensors(checkpoint / WEIGHTS)))


def load_optimizer(checkpoint: Path, engine: Engine, ema: Ema | None) -> None:
    """Adam's moments and the mean of the weights. Every rank must call this."""
    num_updates = read_state(checkpoint).num_updates
    engine.shards.load_moments(SavedTensors(checkpoint / MOMENTS), num_updates)
    if ema is not None:
        ema.load(SavedTensors(checkpoint / EMA_WEIGHTS))


def go_back(checkpoint: Path, engine: Engine, ema: Ema | None) -> None:
    """All that training has changed since, as it was then. Every rank must call this."""
    engine.shards.load_weights(SavedTensors(checkpoint / WEIGHTS))
    load_optimizer(checkpoint, engine, ema)


def record_rollback(run: Path, state: TrainState) -> None:
    """Notes that training went back to ``state.step`` and on with the data of ``state.stream``."""
    record = {
        "step": state.step,
        "num_rollbacks": state.num_rollbacks,
        "stream": state.stream,
    }
    with atomic_write(run / ROLLBACKS) as temporary:
        temporary.write_text(json.dumps([*_rollbacks(run), record], indent=1))


def _rollbacks(run: Path) -> list[dict[str, Any]]:
    path = run / ROLLBACKS
    records: list[dict[str, Any]] = read_json(path) if path.exists() else []
    return records


def describe_state(state: TrainState) -> str:
    return json.dumps(asdict(state))


class SavedTensors(Mapping[str, Tensor]):
    """Tensors of a safetensors file, each read when it is asked for.

    Raises:
        UserError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): copy it again, or delete this "
                "checkpoint to go on from the one before"
            ) from None
        self._names = dict.fromkeys(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
