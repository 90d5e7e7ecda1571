"""Rows of a folder of MDS training shards by number, without what the library does to stream them.

`streaming.StreamingDataset` would add shared memory under numbered names, in which two jobs that
start together collide and which a killed job leaves behind, for an agreement that nobody needs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming.base.compression import decompress
from streaming.base.format import reader_from_json
from streaming.base.format.base.reader import JointReader

from pretrain.data.checks import check_shards
from recaption.common.config import UserError
from recaption.common.files import atomic_write


class TrainingShards:
    """Opens the shards of a folder, or as many of them as hold the first ``num_samples`` rows.

    Raises:
        UserError: a shard is missing, cut off, or holds pickles, which could run anything; there
            are fewer rows than that.
    """

    def __init__(self, folder: Path | str, num_samples: int = 0) -> None:
        self._folder = Path(folder)
        self._readers: list[JointReader] = []
        for shard in check_shards(folder):
            reader = reader_from_json(str(folder), None, shard)
            try:
                reader.validate(allow_unsafe_types=False)
            except ValueError as error:
                raise UserError(f"{folder} is not read: {error}") from None
            assert isinstance(reader, JointReader)  # all of a sample in one file, as MDS has it
            self._readers.append(reader)
        #: Samples of each shard.
        self.sizes: NDArray[np.int64] = np.array([len(reader) for reader in self._readers])
        self._ends = self.sizes.cumsum()
        if num_samples:
            self._keep_first(num_samples)

    @property
    def num_samples(self) -> int:
        return int(self._ends[-1])

    def file_of(self, index: int) -> str:
        """The name of the file that a row stands in."""
        reader = self._readers[self._shard_of(index)]
        return str((reader.zip_data or reader.raw_data).basename)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A row by its place among all, in the order in which they were packed.

        Raises:
            UserError: the file was there when the shards were opened and is no more.
            ValueError: the row's bytes are no text or no JSON.
        """
        shard = self._shard_of(index)
        reader = self._readers[shard]
        position = index - int(self._ends[shard] - self.sizes[shard])
        try:
            return reader[position]
        except FileNotFoundError:
            self._unpack(reader)
            return reader[position]

    def _keep_first(self, num_samples: int) -> None:
        if num_samples > self.num_samples:
            raise UserError(
                f"{self._folder} holds {self.num_samples} samples, fewer than "
                f"data.num_samples={num_samples}"
            )
        num_shards = self._shard_of(num_samples - 1) + 1
        self._readers = self._readers[:num_shards]
        self._ends = np.minimum(self._ends[:num_shards], num_samples)
        self.sizes = np.diff(self._ends, prepend=0)

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _unpack(self, reader: JointReader) -> None:
        """A compressed shard, which is unpacked beside itself when it is first read."""
        packed = self._folder / (reader.zip_data or reader.raw_data).basename
        if not packed.exists() or reader.zip_data is None:
            raise UserError(f"{packed} is gone since training began: copy or pack the shards again")
        with atomic_write(self._folder / reader.raw_data.basename) as path:
            path.write_bytes(decompress(reader.compression, packed.read_bytes()))
