"""Writing checkpoints beside the training: aside, renamed, then closed by a `COMPLETE` marker."""

import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pretrain.checkpoint import (
    COMPLETE,
    EMA_WEIGHTS,
    MOMENTS,
    STATE,
    WEIGHTS,
    TrainState,
    checkpoint_folder,
    complete_checkpoints,
    describe_state,
    step_of,
)
from pretrain.config import TrainConfig
from pretrain.distributed.ranks import Ranks
from pretrain.distributed.shards import Shards
from pretrain.ema import Ema
from recaption.common.config import UserError
from recaption.common.files import permit_as_folder, sync

_Files = dict[str, dict[str, Tensor]]


class CheckpointSaver:
    """Gathers a checkpoint on the first rank, whose thread writes it while training goes on.

    A checkpoint that cannot be written is told and counted, and leaves nothing behind; training
    goes on, with the one before as its last. Only where it was the last act (`wait`), it is an
    error. What a killed attempt left half written or half removed goes with the old checkpoints.

    Args:
        run: folder of the run.
        config: which checkpoints are kept.
        shards: weights and moments.
        ema: mean of the weights, if there is one.
        ranks: every one of them must make the same calls.
    """

    def __init__(
        self, run: Path, config: TrainConfig, shards: Shards, ema: Ema | None, ranks: Ranks
    ) -> None:
        self._run, self._config, self._ranks = run, config, ranks
        self._shards, self._ema = shards, ema
        self._thread: threading.Thread | None = None
        self._failure = ""
        self.num_failures = 0
        self.seconds_written = 0.0  # that the last write took in the background
        self._has_warned = False

    def save(self, state: TrainState) -> None:
        """Begins to save; what is saved is the state of now."""
        self._join()
        started = time.monotonic()
        files: _Files = {
            WEIGHTS: self._gathered(self._shards.weights()),
            MOMENTS: self._gathered(self._shards.moments()),
        }
        if self._ema is not None:
            files[EMA_WEIGHTS] = self._gathered(self._ema.weights())
        if self._ranks.is_first:
            state = replace(
                state, num_updates=self._shards.num_updates, num_ranks=self._ranks.world_size
            )
            self._thread = threading.Thread(target=self._write, args=(state, files, started))
            self._thread.start()
            if not self._config.save_in_background:
                self._thread.join()

    def settle(self) -> None:
        """Until nothing is being written, on any rank: all see the same complete checkpoints."""
        self._join()
        self._ranks.barrier()

    def wait(self) -> None:
        """Until the last checkpoint is complete.

        Raises:
            UserError: it could not be written.
        """
        self._join()
        failed = self._ranks.any(bool(self._failure))
        if failed:
            raise UserError(self._failure or "the first rank could not write the checkpoint")

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _gathered(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """On the CPU of the first rank; the others only take part."""
        return {
            name: tensor.to("cpu", torch.float32 if tensor.is_floating_point() else None, copy=True)
            for name, tensor in tensors
            if self._ranks.is_first
        }

    def _write(self, state: TrainState, files: _Files, asked: float) -> None:
        started = time.monotonic()
        final = checkpoint_folder(self._run, state.step)
        aside = final.with_name(f".{final.name}.tmp")
        self._failure = ""
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for name, tensors in files.items():
                save_file(tensors, aside / name)
            (aside / STATE).write_text(describe_state(state))
            permit_as_folder(aside)
            # On disk before the marker is.
            for path in (*aside.iterdir(), aside):
                sync(path)
            if final.exists():  # of an attempt that went further, or was cut off here
                (final / COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(final)
            aside.rename(final)
            (final / COMPLETE).write_text("")
            for path in (final / COMPLETE, final, final.parent):
                sync(path)
            self._remove_old(final)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not (final / COMPLETE).is_file():
                shutil.rmtree(final, ignore_errors=True)
            self.num_failures += 1
            last = [folder.name for folder in complete_checkpoints(self._run)[-1:]]
            self._failure = (
                f"the checkpoint of step {state.step} cannot be written ({error}): free some room; "
                f"the last complete one is {last[0] if last else 'none'}"
            )
            print(f"warning: {self._failure}", flush=True)
            return
        self.seconds_written = time.monotonic() - started
        self._warn_if_slow(time.monotonic() - asked)

    def _warn_if_slow(self, seconds: float) -> None:
        """Ahead of a job's time limit there is room for one checkpoint, and for the step before."""
        if seconds > self._config.slow_save and not self._has_warned:
            self._has_warned = True
            print(
                f"warning: gathering and writing a checkpoint took {seconds:.0f} s "
                f"(train.slow_save={self._config.slow_save:g}): give the job more time to save "
                "(sbatch --signal=USR1@SECONDS)",
                flush=True,
            )

    def _remove_old(self, newest: Path) -> None:
        every = self._config.keep_every
        for old in complete_checkpoints(self._run)[: -self._config.num_kept_checkpoints]:
            step = step_of(old)
            if (every and step % every == 0) or step in self._config.keep_steps:
                continue
            # The marker goes first: a removal cut short leaves no checkpoint that looks whole.
            (old / COMPLETE).unlink()
            shutil.rmtree(old)
        # Of attempts that were killed while they wrote or removed these.
        for cut_off in (*newest.parent.glob(".step-*.tmp"), *newest.parent.glob("step-*")):
            if not (cut_off / COMPLETE).is_file():
                shutil.rmtree(cut_off, ignore_errors=True)  # the next save tries it again
