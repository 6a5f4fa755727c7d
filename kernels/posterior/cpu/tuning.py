"""The constants of the CPU engine, each with its reason. Results depend on them by rounding only; speed and what is left to others do."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class CpuTuning:
    """Frozen and validated: all are positive, and those of one kind are in order."""

    # Tiles and blocks
    tile_queries: int = 128
    """Queries that are computed together: their scores on `core_rows` samples are 1 MB, what a second cache holds."""
    core_rows: int = 2048
    """Samples that a core takes together in a pass."""
    block_numbers: int = 2**21
    """Numbers of the samples that a core takes together at most: long enough for a matrix product to run at its rate."""
    shares_per_core: int = 4
    """Parts of a pass for each core: whichever core is done takes the next, for other threads may hold one up."""
    small_class: int = 2**23
    """Numbers in the samples of a class up to which a core takes queries of its own, and all samples for them: nothing is merged."""
    one_core: int = 2**22
    """Products of numbers up to which one core does all: to wake another takes longer."""
    repeated_queries: int = 16
    """Queries that are repeated together with all samples as candidates: these are many."""
    dense_room: int = 2**14
    """Candidates that a core has room for at a time in a dense pass."""
    pruned_room: int = 2**16
    """Pairs that a core has room for at a time in a pruned search."""
    pairs_together: int = 2**12
    """Pairs that are weighed together, so that their samples stay in a cache."""
    pairs_alone: int = 4
    """Pairs for each query up to which one core weighs them all: sums of its own cost another more."""
    path_rows: int = 512
    """Samples that a core takes together in a pass of whole paths: their pairs with `tile_queries` paths are half a second cache."""
    least_paths: int = 8
    """Paths from which on a core takes a tile of its own: fewer make poor matrix products."""
    path_means: int = 2**23
    """Numbers in the means of a tile of paths at all times, at most: 64 MB."""
    # Exactness of a dense pass
    score_error: float = 1e-5
    """Nats that the scores may get wrong of all moments together, one standard deviation: a tenth of what is promised of the entropy."""
    most_candidates: int = 2**12
    """A query with more candidates is repeated with all samples as candidates: weighing them costs as much as a pass."""
    most_candidates_of_all: int = 2**16
    """A query with more is left unanswered: a compiled float64 pass costs less."""
    sure_deviations: float = 10.0
    """Standard deviations of a score's error within which the highest is looked for, and by which what is left out is surely too
    light."""
    light_rounding: float = 0.1
    """Nats of rounding up to which what is left out is as heavy as its scores say."""
    equal_scores: float = 1e-6
    """Nats within which all scores of a query are taken for equal: then all is noise."""
    unexpected_error: float = 3.0
    """How many times as large as expected the errors of the candidates' scores may turn out; others are left unanswered."""
    least_spread: float = 0.002
    """Variance, as a share of the mean square distance from the centre, below which float32 would show in it."""
    velocity_error: float = 5e-6
    """Of the velocity: what may be wrong of it by samples left out and by float32's sums, half of what is promised."""
    common_rounding: float = 1e-5
    """Nats up to which float32's rounding of a query may change scores beside each other."""
    dense_hidden: float = 1e-8
    """Share of a query's weight that a dense pass may leave out: less than the rounding of the mean."""
    sparse_weights: float = 0.2
    """Share of the weights of a block up to which samples are summed one by one, at three times what a product takes for each."""
    hidden: float = 1e-7
    """Share of a query's weight that a float32 result cannot show: a pruned search may leave so much out."""
    new_pivot: float = 30.0
    """Nats by which a sample may outweigh the pivot before weights are made anew, relative to its own: exp stays finite."""
    far_center: float = 4.0
    """‖centre‖² as a multiple of the samples' mean square distance from it, from which on they are moved there before a product."""
    near_copy: float = 1e-3
    """Distance of two samples, as a share of the data's size, whose rounding is alike."""
    near_copies: float = 1 / 64
    """Share of near-copies from which on rounding is not taken to average out."""
    near_copy_samples: int = 4096
    """Samples among which near-copies are looked for."""
    # The index
    least_indexed: int = 2**22
    """Numbers in a data set from which on it may have an index: over a smaller one a pass takes milliseconds."""
    index_cost: int = 1500
    """Queries for which a dense pass takes as long as making the index (measured: 60,000 samples of 784 numbers, 2.8 s and 2.5 ms). After
    so many that pruning would have answered the index is made, so that it never costs more than what was lost without it (ski rental)."""
    least_counted: int = 16
    """Queries as which those of one call count at the least: a pass over the samples takes as long for fewer."""
    refined: float = 0.5
    """Weight of the heaviest sample from which on pruning would have answered a query."""
    compiled_cost: float = 2.0
    """Dense passes that a compiled pass costs, with what it repeats in float64: a query that a dense pass leaves is pruned for less."""
    directions: int = 256
    """Leading directions in which samples have coordinates; more bound little more and cost a byte a sample each."""
    direction_numbers: int = 2**23
    """Numbers of the data from which the directions are found."""
    direction_rounds: int = 2
    """Rounds of power iteration: more tighten no bound that was measured."""
    group_edges: tuple[int, ...] = (16, 32, 64, 96, 128, 192)
    """Where groups of coordinates begin, the leading ones first; the last group is what lies outside of the basis."""
    float32_slice: int = 512
    """Coordinates are summed in float32 over so many numbers, and in float64 from there on."""
    byte_grid: float = 1e-6
    """Of a byte's step: data within this of whole steps are bytes, and nothing of them is left."""
    # Layout of the tables, which compiled loops have in registers
    leaf: int = 64
    """Samples in a leaf: eight registers of float32."""
    coarse: int = 16
    """Coordinates that stand by themselves in the first bound; ..."""
    half: int = 32
    """... in the second; ..."""
    fine: int = 64
    """... in the third: finer, and dearer."""
    norm_groups: int = 8
    """Groups of coordinates that have norms in the columns, at most."""
    tall: int = 4
    """Samples in a tile of byte products, and ..."""
    wide: int = 16
    """... queries: eight registers of sums, and as many again for all else."""
    widened: int = 64
    """Samples that are widened to 16 bits at a time: they stay in a second cache while all queries pass."""
    first_leaves: int = 4
    """Leaves in which a good sample is looked for, to begin with."""
    float32_rows: int = 128
    """Rows whose weights are summed in float32, before the sums go on in float64."""
    rows_together: int = 64
    """Rows whose sparse sums are made together."""
    # Pruned search
    by_bytes: float = 10.0
    """Nats below the peak from which a sample may be weighed by its bytes, ..."""
    bytes_error: float = 1e-8
    """... where what they get wrong weighs less than this."""
    narrow: float = 2.0**14
    """Squared diameter of the data, in units of the query's squared noise, beyond which both are stricter in proportion."""
    many_leaves: float = 0.5
    """Share of the leaves that bounds leave from which on each query begins with its best ones, ..."""
    best_leaves: float = 0.07
    """... with this share of them, ..."""
    every_leaf: int = 8
    """... counted on every so many."""
    largest_slack: float = 1e25
    """Nats that float32 may take from a bound at most: beyond it numbers may become infinite."""
    # The cost model
    calibration_queries: int = 16
    """Noisy samples at each noise level for which survivors are counted."""
    calibration_rows: int = 2**14
    """Samples on which costs are measured: tens of milliseconds each."""
    score_factor: float = 4.0
    """How many times more or less than a pair in a dense pass a score by bytes may cost: on a busy machine a difference of two times can
    be anything."""
    least_weigh: float = 3.0
    """How many times what it costs in a dense pass weighing a pair costs at the least, and ..."""
    most_weigh: float = 30.0
    """... at most."""
    share_scored: float = 0.2
    """Share of survivors at which it is measured what a score by bytes costs, and ..."""
    share_weighed: float = 0.005
    """... what a weight does."""
    bound_costs: tuple[float, ...] = (1.0, 2.0, 6.0)
    """What the first columns cost, more columns, and bytes of the other coordinates."""
    most_survivors: float = 0.2
    """Share of the samples left from which on survivors are not counted any further: then all do."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value: Any = getattr(self, field.name)
            every = value if isinstance(value, tuple) else (value,)
            whole = isinstance(field.default, int) or (isinstance(field.default, tuple) and isinstance(field.default[0], int))
            for one in every:
                if isinstance(one, bool) or not isinstance(one, int if whole else (int, float)) or not 0 < one < math.inf:
                    kind = "a whole number" if whole else "a number"
                    raise ValueError(f"CpuTuning.{field.name} must be {kind} above 0, got {value!r}")
        if not self.coarse < self.half < self.fine <= self.directions:
            raise ValueError(f"CpuTuning: coarse < half < fine <= directions; got {(self.coarse, self.half, self.fine, self.directions)}")
        if tuple(sorted(self.group_edges)) != self.group_edges or self.group_edges[0] != self.coarse:
            raise ValueError(f"CpuTuning.group_edges must rise from coarse = {self.coarse}, got {self.group_edges}")


UNIT = 2.0**-24
"""Half of a float32's last place, relative: not tuned."""
TUNING = CpuTuning()
"""The constants in use, set by measurement on machines with AVX2 and AVX-512."""
