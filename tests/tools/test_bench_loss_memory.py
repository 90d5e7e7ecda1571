"""The memory of a loss: not with the ranks, and at most linearly with the images of a rank."""

import json

import pytest

from recaption.common.config import UserError
from tools.bench_loss_memory import CASES, main


def test_memory_by_ranks_and_by_images(capsys):
    # Buffers that are small beside the features: what grows faster than they would show.
    sizes = ["batch_size=24", "whole_batch_size=128", "embed_dim=32", "max_numbers=4096"]
    main([*sizes, "num_tokens=9", "--json"])
    mib = json.loads(capsys.readouterr().out.splitlines()[-1])["mib"]
    assert list(mib) == list(CASES)
    for case, of_batch in mib.items():
        once, twice = of_batch.values()
        for of_ranks in (once, twice):
            assert of_ranks["4"] <= 1.01 * of_ranks["2"], case
            # What one rank alone has no need of: chunks on their way.
            assert of_ranks["2"] <= 1.7 * of_ranks["1"], case
        for ranks in once:
            assert once[ranks] < twice[ranks] <= 2.1 * once[ranks], case


def test_an_unknown_objective_is_refused():
    with pytest.raises(UserError, match="no objective 'dreamlip'"):
        main(["objectives=[dreamlip]"])
