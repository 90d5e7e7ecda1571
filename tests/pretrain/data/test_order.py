"""The order of samples is the library's, and the same in each step on any number of ranks."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from streaming import StreamingDataLoader, StreamingDataset

from pretrain.data.order import PlannedBatch, Position, SampleOrder
from tests.pretrain.trainruns import write_training_shards

NUM_SAMPLES = 39  # a number that 8 canonical nodes and 3 ranks do not go evenly into
SHARD_SIZES = np.array([20, 19])
NUM_STEPS = 8  # of 12 samples: two passes and more


@pytest.fixture
def order_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], SampleOrder]:
    """The order as a rank of a job of so many nodes and ranks a node sees it."""

    def make(num_nodes: int, ranks_per_node: int, rank: int) -> SampleOrder:
        num_ranks = num_nodes * ranks_per_node
        for name, value in (
            ("RANK", rank),
            ("WORLD_SIZE", num_ranks),
            ("LOCAL_WORLD_SIZE", ranks_per_node),
        ):
            monkeypatch.setenv(name, str(value))
        return SampleOrder(SHARD_SIZES, 12 // num_ranks, num_canonical_nodes=8, seed=3)

    return make


def take(order: SampleOrder, start: Position, number: int) -> list[PlannedBatch]:
    return list(islice(order.batches(start), number))


def steps(order_of, num_nodes: int, ranks_per_node: int, start: Position, number: int):
    """Samples and end of each step of a whole job, of all of its ranks together."""
    ranks = [
        take(order_of(num_nodes, ranks_per_node, rank), start, number)
        for rank in range(num_nodes * ranks_per_node)
    ]
    result = []
    for batches in zip(*ranks, strict=True):
        assert len({batch.end for batch in batches}) == 1
        together = sorted(index for batch in batches for index in batch.indices)
        assert len(together) == 12
        result.append((together, batches[0].end))
    return result


def test_the_order_is_the_library_s(order_of, tmp_path: Path) -> None:
    folder = write_training_shards(tmp_path / "shards", NUM_SAMPLES, size_limit=2**14)
    dataset = StreamingDataset(
        local=str(folder), batch_size=12, shuffle=True, shuffle_seed=3, num_canonical_nodes=8
    )
    assert dataset.samples_per_shard.tolist() == SHARD_SIZES.tolist()
    library = StreamingDataLoader(dataset, batch_size=12, drop_last=True)
    keys = [batch["key"] for _ in range(2) for batch in list(library)]
    planned = take(order_of(1, 1, 0), Position(), len(keys))
    assert [[f"{index:04d}" for index in batch.indices] for batch in planned] == keys
    assert {batch.pass_index for batch in planned} == {0, 1}


@pytest.mark.parametrize(("num_nodes", "ranks_per_node"), [(1, 3), (2, 2), (4, 3), (1, 12)])
def test_a_step_has_the_same_samples_on_any_number_of_ranks(
    order_of, num_nodes: int, ranks_per_node: int
) -> None:
    expected = steps(order_of, 1, 1, Position(), NUM_STEPS)
    assert [end for _, end in expected[2:4]] == [Position(0, 36), Position(1, 12)]
    assert steps(order_of, num_nodes, ranks_per_node, Position(), NUM_STEPS) == expected


def test_any_number_of_ranks_goes_on_from_any_step(order_of) -> None:
    expected = steps(order_of, 2, 2, Position(), NUM_STEPS)
    for done in range(1, NUM_STEPS):
        for num_nodes, ranks_per_node in ((1, 1), (1, 4), (4, 1)):
            rest = steps(order_of, num_nodes, ranks_per_node, expected[done - 1][1], 3)
            assert rest[: NUM_STEPS - done] == expected[done : done + 3]


def test_nodes_that_canonical_ones_do_not_go_evenly_into(order_of) -> None:
    """Begun on two nodes, gone on with on three."""
    expected = steps(order_of, 2, 2, Position(), NUM_STEPS)

    def begun_on_two(*job: int) -> SampleOrder:
        order = order_of(*job)
        order.initial_num_nodes = 2
        return order

    assert steps(begun_on_two, 3, 2, expected[0][1], NUM_STEPS - 1) == expected[1:]
