"""A data set distributed over the processes of a job: each holds its own rows, and the statistics of all rows."""

import json
from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from flowjax.data.dataset import DataSet, SampleSet, digest_of, heldout_rows, row_digests
from flowjax.data.records import Records
from flowjax.runtime import processes
from kernels.posterior.distributed.sharded import Sharded, rows_of_process, shard_samples


class DistributedDataSet(SampleSet):
    """N samples of which this process holds those of its devices; others are read when asked for. Made by all processes alike.

    Args:
      records: the samples as stored.
      mesh: of devices, over which the samples are distributed (`kernels.posterior.distributed.sharded`).
      flips, dtype: as in `Records.load`.
      heldout: a share and a seed: only the samples that `DataSet.split` would train on.

    Attributes:
      own: this process's samples, in memory.
      index: `[M]`, which of the N they are.
      value_range, provenance: of all N. `sha256` is `digest`.

    Raises:
      ValueError: as `Records.load`; fewer samples than shards.
    """

    def __init__(self, records: Records, mesh: Mesh, *, flips: bool, dtype: str, heldout: tuple[float, int] | None = None):
        self._records, self._mesh, self._dtype = records, mesh, dtype
        self._rows = np.arange(records.n * (2 if flips else 1))
        labels = None if records.labels is None else np.tile(records.labels, 2 if flips else 1)
        part = {}
        if heldout is not None:
            self._rows = np.flatnonzero(~heldout_rows(records.name, len(self._rows), labels, *heldout))
            labels = None if labels is None else labels[self._rows]
            part = {"split": "train", "heldout_fraction": heldout[0], "split_seed": heldout[1]}
        self.name, self.labels, self.class_names = records.name, labels, records.class_names

        def loaded() -> tuple[np.ndarray, DataSet]:
            index = rows_of_process(len(self._rows), mesh)
            return index, self._load(index)

        self.index, self.own = processes.together(loaded)
        self._digests = self._of_all(row_digests(self.own.data))
        assert self.own.value_range is not None
        ranges = [json.loads(text) for text in processes.gather(json.dumps(self.own.value_range))]
        self.value_range = (min(low for low, _ in ranges), max(high for _, high in ranges))
        self.provenance = {
            **self.own.provenance,
            **part,
            "flips": flips,
            "sha256": self.digest,
            "duplicates": self.n - len(np.unique(self._digests)),
        }

    @property
    def data(self) -> "StoredRows":
        """The N samples, read from the source."""
        return StoredRows(self._load, (len(self._rows), *self._records.shape), self.own.data.dtype)

    def _kept(self) -> "StoredRows":
        return self.data

    @property
    def digest(self) -> str:
        """The digest of a `DataSet` of the same samples."""
        return digest_of(self._digests)

    def sharded(self, *, by_class: bool) -> Sharded:
        """The distinct samples on the devices of the mesh, with multiplicities; by class: equal samples of two stay apart."""
        keys = self._digests
        if by_class:
            assert self.labels is not None
            keys = np.concatenate([keys[:, None].view(np.uint8), self.labels[:, None].view(np.uint8)], axis=1).view("V20").ravel()
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)
        kept, counts = first[order], np.bincount(inverse)[order]
        here = rows_of_process(len(kept), self._mesh)
        mine = kept[here]
        values = self.own.data if np.array_equal(mine, self.index) else processes.together(lambda: self.data[mine])
        labels = self.labels[mine] if by_class and self.labels is not None else None
        return shard_samples(values, self._mesh, labels=labels, counts=counts[here], n=len(kept))

    def heldout(self) -> DataSet:
        """The samples that were held out, all of them on each process."""
        rows = np.arange(self._records.n * (2 if self.provenance["flips"] else 1))
        return self._read(np.setdiff1d(rows, self._rows))

    def queries(self, rows: np.ndarray) -> DataSet:
        """Some of the N samples, the same on all processes: each reads them, all at a time."""
        return processes.together(lambda: self._load(rows))

    def _load(self, index: np.ndarray) -> DataSet:
        return self._read(self._rows[index])

    def _read(self, rows: np.ndarray) -> DataSet:
        return self._records.load(rows % self._records.n, mirror=rows >= self._records.n, dtype=self._dtype)

    def _of_all(self, digests: np.ndarray) -> np.ndarray:
        """The digests of all N samples, in their order."""
        whole = np.zeros(self.n, digests.dtype)
        for text in processes.gather(json.dumps([self.index.tobytes().hex(), digests.tobytes().hex()])):
            index, found = (bytes.fromhex(part) for part in json.loads(text))
            whole[np.frombuffer(index, self.index.dtype)] = np.frombuffer(found, digests.dtype)
        return whole


class StoredRows:
    """The rows of a `DistributedDataSet`, read from where they are stored when asked for; as `flowjax.data.dataset.Rows`."""

    def __init__(self, load: Callable[[np.ndarray], DataSet], shape: tuple[int, ...], dtype: np.dtype):
        self._load, self.shape, self.dtype = load, shape, dtype

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self._load(index).data
