"""In which order a run goes through its samples: pass after pass, on any number of ranks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from streaming.base.partition import get_partitions
from streaming.base.shuffle import get_shuffle
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
    """Plans the batches of this rank, in the order that mosaicml-streaming shuffles.

    The library leaves it to loader workers to come to an agreement about an order at the start of
    each pass, and only then do they begin to read. Here each rank works it out for itself before
    the pass, so that its workers go from one pass into the next without a stop, and what they do
    depends on nothing but the plan.

    Step `s` of a pass holds the same samples however many ranks and nodes share them, as long as
    together they take the same number a step: a run may go on with others.

    Args:
        shard_sizes: samples of each shard.
        batch_size: samples a rank and step.
        num_canonical_nodes: that the order is made for, whatever the number of nodes.
        seed: of the shuffle.
    """

    def __init__(
        self,
        shard_sizes: NDArray[np.int64],
        batch_size: int,
        num_canonical_nodes: int,
        seed: int,
    ) -> None:
        self._shard_sizes = shard_sizes
        self._batch_size = batch_size
        self._num_canonical_nodes = num_canonical_nodes
        self._seed = seed
        self._world = World.detect()
        self._samples_a_step = batch_size * self._world.num_ranks
        # Canonical nodes have the same number of samples, which some repeat a sample for. What
        # further repetition some numbers of ranks need to be even stays out of all passes.
        samples_a_node = -(-int(shard_sizes.sum()) // num_canonical_nodes)
        self._samples_a_pass = samples_a_node * num_canonical_nodes
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
        world = self._world
        # (nodes, ranks a node, 1, batches, batch size)
        places = get_partitions(
            "relaxed",
            int(self._shard_sizes.sum()),
            self._num_canonical_nodes,
            world.num_nodes,
            world.ranks_per_node,
            world.workers_per_rank,
            self._batch_size,
            start.num_samples,
            self.initial_num_nodes,
        )
        shuffled = get_shuffle(
            "py1e",
            self._shard_sizes,
            self._num_canonical_nodes,
            self._seed,
            start.pass_index,
            max(4_000_000 // self._num_canonical_nodes, 2**18),  # the library's own default
        )
        return shuffled[places[world.node, world.rank_of_node, 0, :num_batches]]
