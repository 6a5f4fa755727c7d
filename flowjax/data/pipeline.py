"""Training batches: each is a function of the seed and the step alone, and is read ahead by grain."""

import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import ml_dtypes
import numpy as np

from flowjax.data.dataset import DataSet
from flowjax.data.normalization import Normalization
from flowjax.data.records import Records

if TYPE_CHECKING:
    import grain

_DEVICE_DTYPES = tuple(np.dtype(dtype) for dtype in (np.uint8, np.float32, np.float16, ml_dtypes.bfloat16))  # others become float32
_ORDER, _DRAWS = 0, 1  # uses of a random stream


class Batch(NamedTuple):
    """The part of one training batch that a process feeds to its devices; a pytree.

    Attributes:
      data: `[b, *shape]` as stored (uint8, float16, bfloat16; others as float32); `Batches.normalization` makes a model's values of it on
        the device.
      label: `[b]` int32, `num_classes` where it was dropped for guidance; None for data without labels.
    """

    data: np.ndarray
    label: np.ndarray | None


class Batches:
    """The training batches of a data set: `batches[step]` is a function of seed and step alone.

    Every epoch has its own permutation of the N samples, drawn from (seed, epoch); batches follow it without gaps, across the ends of
    epochs too. Which samples are mirrored, and which labels dropped, is drawn from (seed, step). All draws are for the whole batch, of
    which process p of P takes the p-th P-th: put together in the order of the processes, the batch is the same for every P.

        batches = Batches(records, 256, seed=0, flips=True, label_dropout=0.1, process_index=jax.process_index(),
                          process_count=jax.process_count())
        with contextlib.closing(batches.iterate()) as stream:
            for batch in stream:
                state = train_step(state, batch)  # begins with x = batches.normalization(batch.data)

    Args:
      records: the samples; a `DataSet` serves too.
      batch_size: of all processes together.
      seed: of everything that is drawn.
      flips: mirror each sample with probability one half.
      label_dropout: the probability with which a label gives way to the null label, `num_classes`, for classifier-free guidance.
      process_index, process_count: which part of each batch to read.

    Raises:
      ValueError: a batch size that the processes do not divide, a probability outside [0, 1], labels to drop where there are none,
        samples that cannot be mirrored.
    """

    def __init__(
        self,
        records: Records | DataSet,
        batch_size: int,
        *,
        seed: int,
        flips: bool = False,
        label_dropout: float = 0.0,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self.records = Records.of(records) if isinstance(records, DataSet) else records
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index={process_index}: expected 0 to {process_count - 1}, below process_count")
        if batch_size < 1 or batch_size % process_count:
            raise ValueError(f"batch_size={batch_size}: expected a multiple of the {process_count} processes, at least one sample for each")
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout={label_dropout}: expected a probability, 0 to 1")
        if label_dropout > 0 and self.records.labels is None:
            raise ValueError(f"label_dropout={label_dropout}: {self.records.name} has no labels to drop; set it to 0")
        if flips:
            self.records.check_can_mirror()
        if seed < 0:
            raise ValueError(f"seed={seed}: expected a whole number, 0 or more")
        self.batch_size, self.seed, self.flips, self.label_dropout = batch_size, seed, flips, label_dropout
        share = batch_size // process_count
        self._own = slice(process_index * share, (process_index + 1) * share)
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    @property
    def normalization(self) -> Normalization:
        """The normalisation of `Batch.data`; for the first line of a training step."""
        return self.records.normalization

    @property
    def null_label(self) -> int | None:
        """The label that stands for none: `num_classes`; None for data without labels."""
        return self.records.num_classes

    def __len__(self) -> int:
        return sys.maxsize  # training says when to stop

    def __getitem__(self, step: int) -> Batch:
        """This process's part of the batch of a step, 0, 1, ..."""
        draws = np.random.default_rng((self.seed, _DRAWS, step))
        mirror = (draws.random(self.batch_size) < 0.5)[self._own]
        dropped = (draws.random(self.batch_size) < self.label_dropout)[self._own]
        index = self.index(step)
        data = self.records.read(index, mirror if self.flips else None)
        if data.dtype not in _DEVICE_DTYPES:
            data = data.astype(np.float32)
        if self.records.labels is None:
            return Batch(data, None)
        assert self.null_label is not None
        return Batch(data, np.where(dropped, np.int32(self.null_label), self.records.labels[index]))

    def index(self, step: int) -> np.ndarray:
        """Which samples this process reads at a step, `[b]`."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[self._own]
        epochs, places = np.divmod(positions, self.records.n)
        return np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def iterate(self, start: int = 0, *, threads: int = 2, ahead: int = 4) -> "grain.DatasetIterator":
        """Reads the batches from step `start` on, `ahead` of them in advance.

        `get_state` and `set_state` of the iterator name the next step; it can be saved in an Orbax checkpoint as it is. The state is the
        same in every process: with another number of them, start from the step instead. Close it: its threads live until then.
        """
        import grain

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
        iterator = iter(grain.MapDataset.source(self).to_iter_dataset(options))
        iterator.set_state({"next_index": start})
        return iterator

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch. Steps are read nearly in order: this one and its neighbour are enough to keep."""
        with self._lock:
            if epoch not in self._orders:
                self._orders = {near: order for near, order in self._orders.items() if abs(near - epoch) == 1}
                self._orders[epoch] = np.random.default_rng((self.seed, _ORDER, epoch)).permutation(self.records.n)
            return self._orders[epoch]
