"""In which order a run goes through its samples: pass after pass, on any number of ranks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset
from streaming.base.batching import generate_work
from streaming.base.world import World


@dataclass(frozen=True)
class Position:
    """How far all ranks together have come."""

    pass_index: int = 0
    num_samples: int = 0  # of this pass, taken by all ranks


@dataclass(frozen=True)
class PlannedBatch:
    """The samples that one rank takes in one step."""

    indices: list[int]  # in the shards
    end: Position  # behind this step

    @property
    def pass_index(self) -> int:
        return self.end.pass_index


class SampleOrder:
    """Plans the batches of this rank, from the order that mosaicml-streaming shuffles.

    The library leaves it to loader workers to come to an agreement about an order at the start of
    each pass, and only then do they begin to read. Here each rank works it out for itself before
    the pass, so that its workers go from one pass into the next without a stop, and what they do
    depends on nothing but the plan.

    Step `s` of a pass holds the same samples however many ranks and nodes share them, as long as
    together they take the same number a step: a run may go on with others.

    Args:
        dataset: whose `shuffle_block_size` and `num_canonical_nodes` are set.
        batch_size: samples a rank and step.
    """

    def __init__(self, dataset: StreamingDataset, batch_size: int) -> None:
        self._dataset = dataset
        self._world = World.detect()
        self._samples_a_step = batch_size * self._world.num_ranks
        # Canonical nodes have the same number of samples, which some repeat a sample for. What
        # further repetition some numbers of ranks need to be even stays out of all passes.
        num_nodes = dataset.num_canonical_nodes
        assert num_nodes is not None
        self._samples_a_pass = -(-dataset.num_samples // num_nodes) * num_nodes
        assert self._samples_a_pass >= self._samples_a_step
        #: Nodes at the start of the run. The library shares samples as it did among those, where
        #: the canonical nodes do not go evenly into the nodes of now.
        self.initial_num_nodes = self._world.num_nodes

    def batches(self, start: Position) -> Iterator[PlannedBatch]:
        """This rank's batches behind ``start``, without end."""
        # A pass over 30 M samples takes seconds to plan: that is done while the one before lasts.
        with ThreadPoolExecutor(1, "sample order") as planner:
            following = planner.submit(self._rest_of_pass, start)
            while True:
                batches, next_pass = following.result(), Position(start.pass_index + 1)
                following = planner.submit(self._rest_of_pass, next_pass)
                for number, indices in enumerate(batches, 1):
                    num_taken = start.num_samples + number * self._samples_a_step
                    yield PlannedBatch(indices.tolist(), Position(start.pass_index, num_taken))
                start = next_pass

    def _rest_of_pass(self, start: Position) -> NDArray[np.int64]:
        """The samples of this rank's batches from there to the end of the pass, one row each."""
        num_batches = (self._samples_a_pass - start.num_samples) // self._samples_a_step
        if num_batches <= 0:
            return np.empty((0, 0), np.int64)
        dataset, world = self._dataset, self._world
        dataset.initial_physical_nodes = self.initial_num_nodes  # type: ignore[assignment]
        # (nodes, ranks a node, 1, batches, batch size)
        all_ranks = generate_work(
            dataset.batching_method, dataset, world, start.pass_index, start.num_samples
        )
        # A copy: that of all ranks is large.
        return all_ranks[world.node, world.rank_of_node, 0, :num_batches].copy()
