"""The constants of the CPU engine, each with its reason. They decide its speed, which queries it answers, and results by rounding only."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class CpuTuning:
    """Frozen and validated: all are positive, and those of one kind are in order."""

    # Tiles and blocks
    tile_queries: int = 128
    """Queries that are computed together: their scores on `core_rows` samples are 2 MB, which a second-level cache holds."""
    core_rows: int = 4096
    """Samples that a core takes together in a pass."""
    block_numbers: int = 2**22
    """Numbers of the samples that a core takes together at most: long enough for a matrix product to run at its rate."""
    shares_per_core: int = 4
    """Parts of a pass over a large class for each core: a core that is done takes the next, because other threads may hold a core up."""
    small_class: int = 2**23
    """Numbers in the samples of a class up to which, where there are queries of many classes, each core takes classes of its own."""
    scores_at_once: int = 2**21
    """Scores of a tile up to which all are computed before any weight: 8 MB, which a last cache holds. Means need no merging then."""
    copied_at_once: int = 2**25
    """Numbers in samples up to which they are, where products read a float32 copy of the samples: 128 MB."""
    few_queries: int = 12
    """Queries up to which products read samples where they lie: a library's, which copy them first, take up to twice as long."""
    one_by_one: int = 2**20
    """Products of numbers up to which OpenBLAS adds up all rows one by one in float32, on CPUs with AVX-512."""
    columns_together: int = 64
    """Cores divide columns at multiples of this: whole lines of a cache."""
    queries_of_a_core: int = 8
    """Queries from which on a core takes some to compute what a query's numbers take: to wake it for fewer takes longer."""
    small_numbers: int = 2**18
    """Numbers in a data set up to which float64 products compute all: they cost less than to find the scores that float32 rounds badly."""
    small_products: int = 2**24
    """Products of numbers up to which they do; beyond, float32's products are worth finding them."""
    one_core: int = 2**22
    """Products of numbers up to which one core computes all: to wake another takes longer."""
    repeated_queries: int = 16
    """Queries that are repeated together with all samples as candidates; few, because their candidates are many."""
    dense_room: int = 2**14
    """Candidates that a core has room for at a time in a dense pass."""
    pruned_room: int = 2**16
    """Pairs that a core has room for at a time in a pruned search."""
    pairs_together: int = 2**12
    """Pairs that are weighed together, so that their samples stay in a cache."""
    pairs_of_a_core: int = 64
    """Pairs from which on a core weighs those of queries of its own: to wake it for fewer takes longer."""
    path_rows: int = 512
    """Samples that a core takes together in a pass of whole paths: their pairs with `tile_queries` paths are half a second cache."""
    least_paths: int = 8
    """Paths from which on a core takes a tile of its own: fewer make poor matrix products."""
    path_means: int = 2**23
    """Numbers in the means of a tile of paths at all times, at most: 64 MB."""
    # Exactness of a dense pass
    score_error: float = 1e-5
    """Error of the moments by the scores' rounding, nats, one standard deviation: a tenth of the error promised of the entropy."""
    small_error: float = 1e-6
    """Error of a float64 score, nats, beyond which a query on small data is left unanswered."""
    most_candidates: int = 2**12
    """A query with more candidates is repeated with all samples as candidates: weighing them costs as much as a pass."""
    most_candidates_of_all: int = 2**16
    """A query with more is left unanswered: a compiled float64 pass costs less."""
    sure_deviations: float = 10.0
    """Standard deviations beyond which the error of a score is taken to be impossible."""
    left_out_rounding: float = 0.1
    """Nats of rounding up to which the weight of the samples left out is taken from their scores."""
    equal_scores: float = 1e-6
    """Nats within which all scores of a query are taken for equal: their differences are rounding."""
    unexpected_error: float = 3.0
    """How many times the expected error the error of a query's scores may be; beyond, the query is left unanswered."""
    least_spread: float = 0.002
    """Variance, as a share of the mean square distance from the centre, below which float32 would show in it."""
    velocity_error: float = 5e-6
    """Relative error of the velocity allowed to samples left out and float32 sums: half of the error promised."""
    common_rounding: float = 1e-5
    """Nats by which the float32 rounding of a query may change the difference of two scores."""
    dense_hidden: float = 1e-8
    """Share of a query's weight that a dense pass may leave out: less than the rounding of the mean."""
    sparse_weights: float = 0.2
    """Share of the weights of a block up to which samples are summed one by one, at three times what a product takes for each."""
    hidden: float = 1e-7
    """Share of a query's weight that a pruned search may leave out: a float32 result cannot show it."""
    new_pivot: float = 30.0
    """Nats by which a sample may outweigh the pivot before it becomes the pivot and all weights are computed anew: exp stays finite."""
    far_center: float = 4.0
    """‖centre‖² as a multiple of the samples' mean square distance from it, beyond which they are moved to the centre before a product."""
    near_copy: float = 1e-3
    """Distance of two samples, as a share of the data's size, below which their rounding is alike."""
    near_copies: float = 1 / 64
    """Share of near-copies from which on rounding is not taken to average out."""
    near_copy_samples: int = 4096
    """Samples among which near-copies are counted."""
    # The index
    least_indexed: int = 2**22
    """Numbers in a data set, or a class, from which on an index may serve it: a pass over a smaller one takes milliseconds."""
    least_indexed_samples: int = 2**11
    """Samples from which on it may: the tables that a search makes of a query cost as much as a pass over some hundreds of samples."""
    index_cost: int = 3000
    """Queries for which a dense pass takes as long as making the index (measured on 60,000 samples of 784 numbers: 2.2 s and 0.7 ms with
    AVX-512, 7 s and 2.2 ms with AVX2). After so many queries that pruning would have served, the index is made: it never costs more than
    was lost without it (ski rental). A query of a class counts for its share of the samples."""
    least_counted: int = 16
    """Least number of queries that a call counts as: a pass takes as long for fewer."""
    refined: float = 0.5
    """Weight of the heaviest sample from which on pruning would have served a query."""
    compiled_cost: float = 2.0
    """Dense passes that a compiled pass costs, float64 repeats included: the limit of pruning for a query that a dense pass leaves."""
    directions: int = 256
    """Leading directions in which samples have coordinates; more bound little more and cost a byte a sample each."""
    direction_numbers: int = 2**23
    """Numbers of the data from which the directions are computed."""
    direction_rounds: int = 2
    """Rounds of power iteration: more tighten no bound that was measured."""
    group_edges: tuple[int, ...] = (16, 32, 64, 96, 128, 192)
    """Where groups of coordinates begin, the leading ones first; the last group is what lies outside of the basis."""
    float32_slice: int = 512
    """Coordinates are summed in float32 over so many numbers, and in float64 from there on."""
    byte_grid: float = 1e-6
    """Share of a byte's step within which data are taken to be whole steps, with no remainder."""
    # Layout of the tables, set by the registers of compiled loops
    leaf: int = 64
    """Samples in a leaf: eight registers of float32."""
    coarse: int = 16
    """Coordinates that the first bound has singly."""
    half: int = 32
    """Coordinates that the second bound has singly."""
    fine: int = 64
    """Coordinates that the third bound has singly: finer, and more expensive."""
    norm_groups: int = 8
    """Groups of coordinates that have norms in the columns, at most."""
    tall: int = 4
    """Samples in a tile of byte products."""
    wide: int = 16
    """Queries in a tile of byte products: eight registers of sums, and eight for all else."""
    widened: int = 64
    """Samples that are widened to 16 bits at a time: they stay in a second-level cache while all queries are multiplied."""
    first_leaves: int = 4
    """Leaves whose best sample gives a query its first lower bound."""
    float32_rows: int = 128
    """Rows whose weights are summed in float32; sums over more rows are float64."""
    rows_together: int = 64
    """Rows whose sparse sums are made together."""
    # Pruned search
    by_bytes: float = 10.0
    """Nats below the peak from which on a sample may be weighed by its bytes."""
    bytes_error: float = 1e-8
    """Error of such a sample's weight, as a share of the peak's weight, up to which it is."""
    narrow: float = 2.0**14
    """Squared diameter of the data, in units of the query's squared noise, beyond which these two are stricter in proportion."""
    many_leaves: float = 0.5
    """Share of the leaves that survive their bounds from which on each query's best leaves are searched first."""
    best_leaves: float = 0.07
    """Share of the leaves that are searched first."""
    every_leaf: int = 8
    """Of so many leaves one is counted to tell these shares."""
    largest_slack: float = 1e25
    """Largest rounding error of a bound, nats: beyond it numbers may become infinite."""
    # The cost model
    calibration_queries: int = 16
    """Noisy samples at each noise level for which survivors are counted."""
    calibration_rows: int = 2**14
    """Samples on which costs are measured: tens of milliseconds each."""
    score_factor: float = 4.0
    """How many times more or less than a pair in a dense pass a score by bytes may cost: on a busy machine a difference of two times can
    be anything."""
    least_weigh: float = 3.0
    """Least cost of weighing a pair, as a multiple of a pair's cost in a dense pass."""
    most_weigh: float = 30.0
    """Largest cost of weighing a pair, as a multiple of a pair's cost in a dense pass."""
    share_scored: float = 0.2
    """Share of survivors at which the cost of a score by bytes is measured."""
    share_weighed: float = 0.005
    """Share of survivors at which the cost of a weight is measured."""
    bound_costs: tuple[float, ...] = (1.0, 2.0, 6.0)
    """Relative costs of a bound by the first columns, by more columns, and by bytes of the other coordinates."""
    most_survivors: float = 0.2
    """Share of survivors beyond which they are counted at no larger noise level: there all samples are taken to survive."""

    def worth_an_index(self, n: int, d: int) -> bool:
        """Whether an index may serve `n` samples of `d` numbers: all of the data, or a class."""
        return n >= self.least_indexed_samples and n * d >= self.least_indexed

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
UNIT64 = 2.0**-53
"""Half of a float64's last place, relative."""
TUNING = CpuTuning()
"""The constants in use, set by measurement on machines with AVX2 and AVX-512."""
