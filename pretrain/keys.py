"""Which samples each step was made of: `keys/RANK.txt`, a line a step."""

from collections.abc import Sequence
from pathlib import Path

from pretrain.distributed.ranks import Ranks
from recaption.common.files import atomic_write


class KeysLog:
    """Appends the step and the keys of its samples on this rank, separated by blanks.

    Lines behind ``last_step``, left by an attempt that went further, are dropped.
    """

    def __init__(self, run: Path, ranks: Ranks, last_step: int) -> None:
        folder = run / "keys"
        if ranks.is_first:  # for all ranks of the attempt before, which may have been more
            folder.mkdir(exist_ok=True)
            for path in folder.glob("*.txt"):
                lines = path.read_text().splitlines(keepends=True)
                kept = [x for x in lines if int(x.split()[0]) <= last_step and x.endswith("\n")]
                with atomic_write(path) as temporary:
                    temporary.write_text("".join(kept))
        ranks.barrier()
        self._file = (folder / f"{ranks.rank:05d}.txt").open("a")

    def write(self, step: int, keys: Sequence[str]) -> None:
        self._file.write(f"{step} {' '.join(keys)}\n")
        self._file.flush()
