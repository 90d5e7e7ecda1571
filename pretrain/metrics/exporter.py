"""What the trainer tells Prometheus.

What is true of the whole run is told by the first rank alone, so that nothing is counted twice;
what is true of a rank (shares of its time, its memory) by the first rank of each node.
"""

import time

from recaption.common import exporter

PREFIX = "canopy_"
LABELS = ("run", "node", "rank")

#: Gauges by name: what they tell, and the label that they have besides `LABELS`.
GAUGES: dict[str, tuple[str, str | None]] = {
    # of the run
    "running": ("1 while training; 0 after it has ended or was stopped as asked", None),
    "step": ("Steps done", None),
    "target_steps": ("Steps that the run will have done at its end", None),
    "progress_timestamp_seconds": ("When a row of metrics was last written, Unix time", None),
    "left_seconds": ("Time left to the last step, at the present rate", None),
    "samples_per_second": ("Images a second, all ranks together", None),
    "tokens_per_second": ("Text tokens a second, all ranks together", None),
    "mfu": ("Model FLOPs a second, as a share of all devices' peak", None),
    "loss": ("Loss of the last step, mean over ranks", None),
    "loss_term": ("A term of the loss, mean over ranks", "term"),
    "logit_parameter": ("Scales and biases of the logits", "name"),
    "grad_norm": ("Norm of the last step's gradient, before clipping", None),
    "learning_rate": ("Learning rate of the last step", None),
    "loss_spike_score": ("Deviations of the loss from its recent mean", None),
    "validation": ("A figure of the last validation", "name"),
    "checkpoint_timestamp_seconds": (
        "When the last complete checkpoint was written, Unix time; before the first one, when "
        "training began",
        None,
    ),
    "checkpoint_age_seconds": ("Time since then, when asked", None),
    "checkpoint_cost_seconds": ("Time for which training stood still for it", None),
    # of a rank
    "step_share": ("Share of this rank's time, of the host", "part"),
    "loader_queue_depth": ("Batches that were ready when one was asked for, mean", None),
    "process_memory_bytes": ("Memory of the rank's process, without its loader workers", "kind"),
    "accelerator_memory_bytes": ("Memory of torch's allocator on the rank's device", "kind"),
}
#: Counters by name without `_total`, from the start of this attempt.
COUNTERS: dict[str, tuple[str, str | None]] = {
    # of the run
    "samples": ("Images trained on, all ranks together", None),
    "tokens": ("Text tokens trained on, all ranks together", None),
    "cut_texts": ("Texts that were longer than the context, all ranks together", None),
    "bad_samples": ("Samples that could not be read, all ranks together", None),
    "skipped_steps": ("Updates left out because the gradient was not finite", None),
    "rollbacks": ("Returns to the last checkpoint because of a bad loss", None),
    # of a rank
    "metrics_failures": ("Metrics that could not be written", "sink"),
}


class Exporter(exporter.Exporter):
    """The trainer's metrics.

    Args:
        run: the run's folder.
        node: name of this node.
        rank: this rank.
    """

    def __init__(self, run: str, node: str, rank: int) -> None:
        labels = dict(zip(LABELS, (run, node, str(rank)), strict=True))
        super().__init__(PREFIX, labels, GAUGES, COUNTERS)

    def begin(self, target_steps: int, checkpoint_time: float) -> None:
        """What the first rank tells from the start: counters at 0, the last checkpoint.

        Args:
            target_steps: of the whole run.
            checkpoint_time: of the checkpoint that this attempt began with, or now; Unix time.
        """
        for name, (_, label) in COUNTERS.items():
            if label is None:
                self.add(name, 0)
        self.set("running", 1)
        self.set("target_steps", target_steps)
        self.tell_checkpoint(checkpoint_time)
        self.set("progress_timestamp_seconds", time.time())

    def tell_checkpoint(self, written: float, cost_seconds: float | None = None) -> None:
        self.set("checkpoint_timestamp_seconds", written)
        self.set_function("checkpoint_age_seconds", lambda: time.time() - written)
        if cost_seconds is not None:
            self.set("checkpoint_cost_seconds", cost_seconds)
