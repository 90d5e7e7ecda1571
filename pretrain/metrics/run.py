"""All that a run tells, behind one object: the trainer's side of `pretrain.metrics`.

A failure to tell never stops training: it is counted, and said once with its reason.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pretrain.checkpoint import COMPLETE, checkpoint_folder
from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.data.stream import Batch
from pretrain.distributed.ranks import Ranks
from pretrain.metrics.collectives import watch_collectives
from pretrain.metrics.console import Console, describe_validation
from pretrain.metrics.exporter import Exporter
from pretrain.metrics.flops import ModelFlops, count_flops
from pretrain.metrics.log import METRICS, MetricsLog
from pretrain.metrics.memory import accelerator_memory, process_memory
from pretrain.metrics.stopwatch import Stopwatch
from recaption.common.exporter import Guard, fill_in, node_name

TENSORBOARD = "tensorboard"
#: Names in `metrics.jsonl` of a rank's shares of time, which stand there as means over ranks.
SHARES = {
    "data": "data_wait_share",
    "compute": "compute_share",
    "communicate": "communication_share",
    "save": "save_share",
    "validate": "validation_share",
}
#: Values of a row that Prometheus knows by the same name.
_GAUGES = (
    *("step", "left_seconds", "samples_per_second", "tokens_per_second", "mfu", "loss"),
    *("grad_norm", "learning_rate", "loss_spike_score"),
)
#: Totals of a run that go on in the next attempt, by their names as counters.
_TOTALS = {"skipped_steps": "num_skipped_steps", "rollbacks": "num_rollbacks"}


class RunMetrics:
    """Measures windows of steps and tells about each: `metrics.jsonl`, the console, Prometheus,
    TensorBoard.

    Every rank makes one. The first tells of the run, the first of each node of itself.

    Args:
        config: of the run.
        ranks: this rank and the others.
        first_step: steps that were done before this attempt.
        totals: `num_skipped_steps` and the like, as they are at the start of this attempt.
        queue_depth: how many batches are ready, where that can be told.
    """

    def __init__(
        self,
        config: PretrainConfig,
        ranks: Ranks,
        first_step: int,
        totals: Mapping[str, float] | None = None,
        queue_depth: Callable[[], int | None] | None = None,
    ) -> None:
        self.stopwatch = Stopwatch()
        self._config = config
        self._ranks = ranks
        self._totals = dict(totals or {})
        self._queue_depth = queue_depth
        self._guard = Guard("training")
        self._counts: Counter[str] = Counter()
        self._log: MetricsLog | None = None
        self._exporter: Exporter | None = None
        self._tensorboard: Any = None
        self._flops: ModelFlops | None = None
        if ranks.local_rank == 0:
            self._open_exporter(first_step)
        if ranks.is_first:
            self._open_files(first_step)
        if "deepspeed" in sys.modules:
            with self._guard("collectives"):
                watch_collectives(self.stopwatch)
        self._begin_window(first_step)

    def watch(self, part: str) -> AbstractContextManager[None]:
        """Attributes a block to a part of the step; see `Stopwatch`."""
        if part == "data" and self._queue_depth is not None:
            with self._guard("queue depth"):
                depth = self._queue_depth()
                if depth is not None:
                    self._counts["queue_depth"] += depth
                    self._counts["queue_asked"] += 1
        return self.stopwatch.watch(part)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """A block that writes a checkpoint; one that fails is not told as written."""
        started = time.monotonic()
        with self.stopwatch.watch("save"):
            yield
        self.checkpoint_written(time.monotonic() - started)

    def checkpoint_written(self, cost_seconds: float) -> None:
        """A checkpoint is complete since now; training stood still for ``cost_seconds``."""
        if self._exporter is not None and self._ranks.is_first:
            with self._guard("prometheus"):
                self._exporter.tell_checkpoint(time.time(), cost_seconds)

    def step(self, batch: Batch, num_bad_samples: int = 0) -> None:
        """Counts what a step trained on, on this rank."""
        self._counts["samples"] += len(batch.images)
        self._counts["tokens"] += len(batch.texts.tokens)
        self._counts["texts"] += len(batch.texts.offsets) - 1
        self._counts["cut_texts"] += batch.num_cut_texts
        self._counts["bad_samples"] += num_bad_samples

    def window(
        self,
        step: int,
        loss_terms: Mapping[str, float],
        scales: Mapping[str, float],
        **values: float,
    ) -> dict[str, float]:
        """Ends a window of steps, tells about it and begins the next. Every rank must call this.

        Args:
            step: steps done.
            loss_terms: of this rank's last step.
            scales: scales and biases of the logits, the same on every rank.
            values: further numbers, the same on every rank, which go into the row under their own
                names; among them `learning_rate`, `grad_norm`, `num_skipped_steps`.

        Returns:
            The row as it stands in `metrics.jsonl`; loss and terms are means over ranks.
        """
        seconds, shares = self.stopwatch.elapsed(), self.stopwatch.shares()
        counts, self._counts = self._counts, Counter()
        self.stopwatch.reset()  # what telling takes belongs to the next window
        counted = ("samples", "tokens", "texts", "cut_texts", "bad_samples")
        # The one collective of all this, and not guarded: a rank without it would hang the others.
        means = self._ranks.mean(
            {
                **loss_terms,
                **{SHARES[part]: share for part, share in shares.items()},
                **{f"num_{name}": float(counts[name]) for name in counted},
            }
        )
        num = {name: round(means[f"num_{name}"] * self._ranks.world_size) for name in counted}
        row: dict[str, float] = {
            "step": step,
            "loss": sum(means[name] for name in loss_terms),
            **{name: means[name] for name in loss_terms},
            "cut_text_share": num["cut_texts"] / max(num["texts"], 1),
            "bad_sample_share": num["bad_samples"] / max(num["samples"], 1),
            **values,
            **scales,
            "samples_per_second": num["samples"] / seconds,
            "tokens_per_second": num["tokens"] / seconds,
            **{name: means[name] for name in SHARES.values()},
            "num_ranks": self._ranks.world_size,
        }
        if self._flops is not None:
            peak = self._config.metrics.peak_flops * self._ranks.world_size
            row["mfu"] = self._flops.of(num["samples"], num["tokens"]) / seconds / peak
        row |= {"left_seconds": self._console.seconds_left(step), "seconds": time.time()}

        if self._ranks.is_first:
            self._tell_of_the_run(row)
        if self._exporter is not None:
            if self._ranks.is_first:
                with self._guard("prometheus"):
                    self._export_run(self._exporter, row, loss_terms, scales, num)
            with self._guard("prometheus"):
                self._export_rank(self._exporter, shares, counts)
            self._write_textfile(self._exporter)
        return row

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """Tells what the weights after ``step`` gave on samples that are not trained on.

        Args:
            step: steps done.
            figures: by name, as `pretrain.validation` gives them; only the first rank's are told.
        """
        if not self._ranks.is_first:
            return
        with self._guard("console"):
            print(describe_validation(step, figures), flush=True)
        if self._log is not None:
            with self._guard(METRICS):
                row = {"step": step, "validation": dict(figures), "seconds": time.time()}
                self._log.write(row)
        if self._tensorboard is not None:
            with self._guard(TENSORBOARD):
                for name, value in figures.items():
                    self._tensorboard.add_scalar(f"validation/{name}", value, step)
        if self._exporter is not None:
            with self._guard("prometheus"):
                self._exporter.set("validation", figures)
            self._write_textfile(self._exporter)

    def rewind(self, step: int) -> None:
        """The run goes on from ``step``, which it had passed: rows behind it are dropped."""
        if self._log is not None:
            with self._guard(METRICS):
                self._log.close()
                self._log = MetricsLog(Path(self._config.run) / METRICS, step)
        self._begin_window(step)

    def close(self) -> None:
        """The run has ended, or was stopped as asked; one that fails is left as running."""
        if self._exporter is not None:
            if self._ranks.is_first:
                with self._guard("prometheus"):
                    self._exporter.set("running", 0)
            self._write_textfile(self._exporter)
            with self._guard("server"):
                self._exporter.close()
        if self._log is not None:
            with self._guard(METRICS):
                self._log.close()
        if self._tensorboard is not None:
            with self._guard(TENSORBOARD):
                self._tensorboard.close()

    # ---- opening

    def _begin_window(self, step: int) -> None:
        every = self._config.metrics.console_every
        self._console = Console(self._config.train.num_steps, step, every)
        self._counts.clear()
        self.stopwatch.reset()

    def _open_exporter(self, first_step: int) -> None:
        chosen, ranks = self._config.metrics, self._ranks
        node = node_name()
        self._textfile = fill_in(chosen.textfile, node=node, rank=str(ranks.rank))
        with self._guard("prometheus"):
            self._exporter = self._guard.exporter = Exporter(self._config.run, node, ranks.rank)
            if ranks.is_first:
                marker = checkpoint_folder(Path(self._config.run), first_step) / COMPLETE
                saved = marker.stat().st_mtime if marker.exists() else time.time()
                self._exporter.begin(self._config.train.num_steps, saved)
        if self._exporter is not None and chosen.port:
            with self._guard("server", f"nobody serves {chosen.host}:{chosen.port}"):
                self._exporter.serve(chosen.host, chosen.port)

    def _open_files(self, first_step: int) -> None:
        chosen, run = self._config.metrics, Path(self._config.run)
        with self._guard(METRICS):
            self._log = MetricsLog(run / METRICS, first_step)
        if chosen.tensorboard:
            with self._guard(TENSORBOARD):
                from torch.utils.tensorboard import SummaryWriter  # an optional package

                self._tensorboard = SummaryWriter(
                    str(run / TENSORBOARD), purge_step=first_step + 1 if first_step else None
                )
        if chosen.peak_flops:
            with self._guard("mfu"):
                self._flops = count_flops(self._config.model, num_texts(self._config.data.captions))

    # ---- telling

    def _tell_of_the_run(self, row: dict[str, float]) -> None:
        if self._console.is_due(int(row["step"])):
            with self._guard("console"):
                self._console.print(row)
        if self._log is not None:
            with self._guard(METRICS):
                self._log.write(row)
        if self._tensorboard is not None:
            with self._guard(TENSORBOARD):
                for name, value in row.items():
                    self._tensorboard.add_scalar(name, value, int(row["step"]))

    def _export_run(
        self,
        exporter: Exporter,
        row: Mapping[str, float],
        loss_terms: Mapping[str, float],
        scales: Mapping[str, float],
        num: Mapping[str, int],
    ) -> None:
        for name in _GAUGES:
            if name in row:
                exporter.set(name, row[name])
        exporter.set("loss_term", {name: row[name] for name in loss_terms})
        exporter.set("logit_parameter", scales)
        exporter.set("progress_timestamp_seconds", row["seconds"])
        for name in ("samples", "tokens", "cut_texts", "bad_samples"):
            exporter.add(name, num[name])
        for name, key in _TOTALS.items():
            if key in row:
                # A total that fell belongs to an earlier checkpoint: it is counted on from there.
                exporter.add(name, max(row[key] - self._totals.get(key, 0), 0))
                self._totals[key] = row[key]

    def _export_rank(
        self, exporter: Exporter, shares: Mapping[str, float], counts: Mapping[str, int]
    ) -> None:
        exporter.set("step_share", shares)
        exporter.set("process_memory_bytes", process_memory())
        exporter.set("accelerator_memory_bytes", accelerator_memory(self._ranks.device))
        if counts["queue_asked"]:
            exporter.set("loader_queue_depth", counts["queue_depth"] / counts["queue_asked"])

    def _write_textfile(self, exporter: Exporter) -> None:
        if self._textfile:
            with self._guard("textfile", f"{self._textfile} is not written"):
                exporter.write_textfile(self._textfile)
