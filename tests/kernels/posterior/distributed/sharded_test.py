"""Samples over one axis of a mesh, queries over the other: the answer of one device, and traffic that does not grow with N."""

import functools
import math
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flowjax.oracle import Oracle, OracleOutput
from kernels.posterior import BlockSizes, posterior
from kernels.posterior.api import plan, run
from kernels.posterior.distributed.sharded import abstract_samples, rows_of_process, shard_samples
from kernels.posterior.types import Queries
from tests import float64_oracle as exact
from tests.two_processes import run_two
from tests.xla_flags import without_flags

ROOT = pathlib.Path(__file__).parents[4]
D, B = 64, 24
FIELDS = ("velocity", "denoised", "log_density", "top1_weight", "entropy", "effective_samples", "variance", "cfm_gap", "divergence")


def mesh_of(samples: int, queries: int = 1) -> Mesh:
    devices = np.array(jax.devices()[: samples * queries])
    return Mesh(devices.reshape(samples, queries), ("samples", "queries"))


def on_path(data: np.ndarray, t: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.reshape(t, (-1,) + (1,) * (data.ndim - 1)).astype(np.float32)
    y = data[rng.integers(len(data), size=len(t))]
    return (t * y + (1 - t) * rng.standard_normal(y.shape)).astype(np.float32)


def same(got: OracleOutput, wanted: OracleOutput) -> None:
    """Equal to float32 rounding: every sum is of float32 terms, of which at most eight shards' meet again."""
    rows = len(wanted.velocity)
    np.testing.assert_array_equal(got.top1_index, wanted.top1_index)
    for name in FIELDS:
        a, b = (
            np.nan_to_num(np.asarray(getattr(out, name), np.float64), nan=np.nan, posinf=1e30, neginf=-1e30).reshape(rows, -1)
            for out in (got, wanted)
        )
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        size = np.nan_to_num(np.linalg.norm(b, axis=1))
        # Variance and what follows from it is the square of a difference; entropy is a sum over terms of the size of log N.
        floor = {"variance": 1e-6 * D, "cfm_gap": 1e-5 * D, "divergence": 1e-3, "entropy": 1e-5, "effective_samples": 1e-4}.get(name, 1e-6)
        error = np.nan_to_num(np.linalg.norm(a - b, axis=1))
        assert (error <= 1e-5 * size + floor).all(), (name, error.max(), size[error.argmax()])


T = np.concatenate([[0.0, 1e-3, 0.01, 0.999, 1.0], np.linspace(0.05, 0.95, B - 5)]).astype(np.float32)
LABEL = np.where(np.arange(B) % 3 == 0, -1, np.arange(B) % 3)


def clusters() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """41 clusters of near-duplicates 1e-4 apart, and copies: the members of each lie on all shards. Samples, labels, counts."""
    rng = np.random.default_rng(1)
    data = np.repeat(rng.standard_normal((41, D)), 8, axis=0) + 1e-4 * rng.standard_normal((328, D))
    data[300:311] = data[300]
    counts = rng.integers(1, 4, 325)
    counts[300:311] = 2
    return data[:325].astype(np.float32), np.arange(325) % 3, counts.astype(np.float32)


CLUSTERS, LABELS, COUNTS = clusters()


@pytest.fixture(scope="module")
def clustered() -> Oracle:
    """On shards that do not divide them evenly, with classes and counts. One program answers whatever has a t = 1 in it."""
    return Oracle(CLUSTERS, LABELS, counts=COUNTS, mesh=mesh_of(4, 2))


@pytest.mark.slow
def test_equal_to_one_device(clustered):
    """With classes and without, from t = 0 on; t = 1 is below."""
    x, inside = on_path(CLUSTERS, T), T < 1
    found = jax.tree.map(lambda v: v[inside], clustered(x, T, LABEL))
    same(found, Oracle(CLUSTERS, LABELS, counts=COUNTS)(x[inside], T[inside], LABEL[inside]))


@pytest.mark.parametrize("t", [0.05, 0.5, 0.99, 0.999])
def test_near_duplicates_and_ties_on_different_shards_are_exact(clustered, t):
    """Against float64: the mean of samples on all devices, of which the velocity is a thousandth; counts; the lowest of equal indices."""
    t = np.full(B, t, np.float32)
    x = on_path(CLUSTERS, t)
    x[-2] = t[-2] * CLUSTERS[300]
    t[-1], x[-1] = 1, CLUSTERS[305]
    out = clustered(x, t)
    assert int(out.top1_index[-1]) == 300
    np.testing.assert_allclose(out.top1_weight[-1], 1 / 11, rtol=1e-6)
    np.testing.assert_allclose(out.denoised[-1], CLUSTERS[300], rtol=1e-7)
    wanted = exact.oracle(CLUSTERS, x[:-1], t[:-1], counts=COUNTS)
    out = jax.tree.map(lambda v: v[:-1], out)
    rows = np.arange(B - 1) < B - 2  # x = a sample: its velocity is 0 but for rounding
    error = np.linalg.norm(out.velocity - wanted.velocity, axis=1)
    assert (error <= 1e-5 * np.linalg.norm(wanted.velocity, axis=1))[rows].all()
    np.testing.assert_allclose(out.log_density, wanted.log_density, rtol=1e-4)
    np.testing.assert_allclose(out.entropy, wanted.entropy, atol=1e-4)
    np.testing.assert_allclose(out.top1_weight, wanted.top1_weight, atol=1e-4)
    np.testing.assert_allclose(out.variance, wanted.variance, rtol=1e-4, atol=1e-9)
    clear = wanted.top1_weight - wanted.runner_up > 1e-6
    np.testing.assert_array_equal(np.asarray(out.top1_index)[clear], wanted.top1_index[clear])


@pytest.mark.slow
def test_derivatives_equal_those_of_one_device():
    """jvp, and grad through the velocity, from the covariance over all shards."""
    t = np.linspace(0.05, 0.999, B).astype(np.float32)
    x, v = on_path(CLUSTERS, t), np.random.default_rng(2).standard_normal((B, D)).astype(np.float32)
    one, sharded = (Oracle(CLUSTERS, counts=COUNTS, mesh=mesh, precision="high") for mesh in (None, mesh_of(8)))
    wanted, got = np.asarray(one.jvp(x, t, v)), np.asarray(sharded.jvp(x, t, v))
    assert (np.linalg.norm(got - wanted, axis=1) <= 1e-5 * np.linalg.norm(wanted, axis=1)).all()
    gradient = jax.jit(jax.grad(lambda x, o: (o(x, t, moments="velocity").velocity * v).sum()))(x, sharded)
    np.testing.assert_allclose(gradient, got, rtol=1e-5, atol=1e-5 * np.abs(got).max())


@pytest.mark.long
def test_jit_and_vmap(clustered):
    """As an argument of a jitted function, and with a batch of batches folded into one."""
    t = np.full(B, 0.3, np.float32)
    x = on_path(CLUSTERS, t)
    ask = jax.jit(lambda o, x: jax.vmap(lambda some: o(some, 0.3, moments="velocity").velocity)(x))
    found = ask(clustered, x.reshape(6, 4, D)).reshape(B, D)
    t[-1] = 1
    np.testing.assert_allclose(found[:-1], clustered(x, t).velocity[:-1], rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_samples_that_do_not_fill_all_shards():
    """Three samples on two shards: the last place of one is empty, and never counts."""
    data = np.array([[0, 3], [1, -1], [-2, 5]], np.float32)
    sharded, x = Oracle(data, mesh=mesh_of(2), precision="high"), np.ones((3, 2), np.float32)
    t = np.array([0, 0.5, 0.9], np.float32)
    got, wanted = sharded(x, t), Oracle(data, implementation="streaming")(x, t)
    # Sums of terms of about 1, which two programs round in another order.
    np.testing.assert_allclose(got.denoised, wanted.denoised, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.entropy, wanted.entropy, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.log_density, wanted.log_density, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got.top1_index, wanted.top1_index)


def test_data_labels_and_counts_come_back_in_the_callers_order(digits):
    """Data, labels and counts in the caller's order and dtype; three of the four are sorted on the shards."""
    data = np.round(digits[0][:100] * 8 + 8).astype(np.uint8)
    oracle = Oracle(data, digits[1][:100], counts=np.arange(1, 101), mesh=mesh_of(4, 2))
    assert oracle.data.dtype == jnp.uint8
    np.testing.assert_array_equal(oracle.data, data)
    np.testing.assert_array_equal(oracle.labels, digits[1][:100])
    np.testing.assert_allclose(oracle.counts, np.arange(1, 101), rtol=1e-6)
    assert oracle.mesh is not None
    assert Oracle(digits[0][:99], mesh=mesh_of(4)).counts is None
    assert oracle.mesh.shape == {"samples": 4, "queries": 2}


def test_each_shard_is_sorted_by_class(digits):
    """Round-robin: shard s has rows s, s + S, ...; the rows of one class are together."""
    samples = shard_samples(digits[0], mesh_of(8), labels=digits[1]).samples
    index, labels = (np.asarray(v).reshape(8, -1) for v in (samples.index, samples.labels))
    for shard in range(8):
        rows = np.arange(shard, 1797, 8)
        np.testing.assert_array_equal(np.sort(index[shard][: len(rows)]), rows)
        assert (np.diff(labels[shard]) >= 0).all()


@pytest.mark.slow
def test_a_tile_visits_only_the_blocks_of_its_classes():
    """NaN in all classes below that of the queries: they never see it."""
    data, labels = np.zeros((64, 4), np.float32), np.repeat(np.arange(4), 16)
    sharded = shard_samples(data, mesh_of(2), labels=labels)
    values = jnp.where(sharded.samples.labels[:, None] >= 2, jnp.ones((64, 4)), jnp.nan)
    poisoned = jax.tree.map(lambda v: values if v is sharded.samples.values else v, sharded)
    how = plan("velocity", None, BlockSizes(samples=8), "highest")
    ones = np.ones(3, np.float32)
    out = run(Queries(np.ones((3, 4), np.float32), ones, ones, np.full(3, 2, np.int32)), poisoned, how)
    np.testing.assert_allclose(out.denoised, 1)


@pytest.mark.slow
def test_inside_a_callers_shard_map():
    """`axis_name`: this device's rows in, the posterior over all rows out; the index is that of all rows in order."""
    data = CLUSTERS[:320]
    t = np.linspace(0.05, 0.999, B).astype(np.float32)
    x = on_path(data, t)
    ask = functools.partial(posterior, x, t, 1 - t, axis_name="samples", precision="high")
    got = jax.jit(jax.shard_map(ask, mesh=mesh_of(8), in_specs=P("samples"), out_specs=P(), check_vma=False))(data)
    wanted = posterior(x, t, 1 - t, data, precision="high")
    np.testing.assert_allclose(got.denoised, wanted.denoised, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.entropy, wanted.entropy, atol=1e-5)
    np.testing.assert_array_equal(got.top1_index, wanted.top1_index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mesh": "batch"}, r"axes 'samples' and 'queries'.*got \('batch',\)"),
        ({"mesh": 3}, "axes 'samples' and 'queries'.*got 3"),
        ({"data": np.zeros((3, 4))}, "3 samples do not fit 8 shards"),
        ({"data": np.zeros((0, 4))}, r"at least one sample.*\(0, 4\)"),
        ({"data": np.zeros((9, 0))}, r"at least one sample.*\(9, 0\)"),
        ({"data": np.where(np.arange(36).reshape(9, 4) == 7, np.nan, 0)}, "data has NaN"),
        ({"labels": np.zeros(4, int)}, "labels must be 9 integers"),
        ({"counts": np.zeros(9)}, "counts must be 9 positive numbers"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message):
    arguments = {"data": np.zeros((9, 4)), "mesh": mesh_of(8)} | arguments
    if arguments["mesh"] == "batch":
        arguments["mesh"] = Mesh(np.array(jax.devices()), ("batch",))
    with pytest.raises(ValueError, match=message):
        Oracle(arguments.pop("data"), **arguments)


def test_a_label_without_samples_is_refused(digits):
    oracle = Oracle(digits[0], digits[1], mesh=mesh_of(8))
    with pytest.raises(ValueError, match="label 11 has no samples"):
        oracle(digits[0][:2], 0.5, np.array([3, 11]))


def test_data_already_sharded_bring_their_own_labels(digits):
    sharded = shard_samples(digits[0], mesh_of(8))
    assert Oracle(sharded).data.shape == (1797, 8, 8, 1)
    with pytest.raises(ValueError, match=r"sharded already.*\['labels'\] again"):
        Oracle(sharded, digits[1])


def test_a_process_must_bring_its_own_rows():
    mesh = mesh_of(8)
    np.testing.assert_array_equal(rows_of_process(20, mesh), np.arange(20))
    with pytest.raises(ValueError, match=r"the 20 rows of rows_of_process\(20, mesh\) on this process, got 19"):
        shard_samples(np.zeros((19, 4)), mesh, n=20)


# What crosses devices.

Collective = tuple[str, tuple[int, ...]]


def collectives(hlo: str) -> list[Collective]:
    """Opcode and shape of every array that a collective of a compiled program carries."""
    found = []
    for line in hlo.splitlines():
        if match := re.search(r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)[a-z-]*\(", line):
            types, opcode = match.groups()
            found += [(opcode, tuple(int(n) for n in dims.split(",") if n)) for dims in re.findall(r"\b[a-z]+\d+\[([\d,]*)\]", types)]
    return found


def compiled(n: int, d: int, b: int, mesh: Mesh, dtype: str = "float32", queries: int = 256) -> jax.stages.Compiled:
    """One pass at `default` precision, t < 1, from shapes alone."""

    def rows(*shape: int, of: str = "float32") -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((b, *shape), of, sharding=NamedSharding(mesh, P()))

    how = plan("all", None, BlockSizes(queries=queries), "default", limit=False)
    return run.lower(Queries(rows(d), rows(), rows(), rows(of="int32")), abstract_samples(n, (d,), dtype, mesh), how).compile()


def check_collectives(found: list[Collective], b: int, d: int) -> None:
    """All-reduces only: one of size B·D, float32 head and tail of each number, and a few of size B."""
    assert {opcode for opcode, _ in found} == {"all-reduce"}
    large = [shape for _, shape in found if math.prod(shape) >= b * d]
    assert large == [(2, b, d)]
    small = [math.prod(shape) for _, shape in found if shape not in large]
    assert max(small) <= 3 * b
    assert sum(small) <= 20 * b


@pytest.mark.slow
def test_collectives_do_not_depend_on_the_number_of_samples():
    """On eight CPU devices: the same collectives for 4,000 samples as for 40,001."""
    few, many = (collectives(compiled(n, 512, 32, mesh_of(8)).as_text()) for n in (4_000, 40_001))
    check_collectives(few, 32, 512)
    assert sorted(few) == sorted(many)


@pytest.mark.long
def test_an_imagenet_of_latents_on_256_tpus():
    """[1281167, 8192] bfloat16 on v5e:16x16, by the TPU's own compiler: 78 MiB of data a device, one collective of size B·D a tile."""
    pytest.importorskip("libtpu")
    code = f"""
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from tests.kernels.posterior.distributed.sharded_test import check_collectives, collectives, compiled
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:16x16").devices
program = compiled(1281167, 8192, {B}, Mesh(np.array(devices).reshape(256, 1), ("samples", "queries")), "bfloat16")
check_collectives(collectives(program.as_text()), {B}, 8192)
print(program.memory_analysis().argument_size_in_bytes)
"""
    environment = without_flags(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1", JAX_PLATFORMS="cpu")
    out = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    assert int(out.stdout.split()[-1]) <= 100 * 2**20


# Two processes.

WORKER = """
import sys
import jax
port, number, path = sys.argv[1:]
jax.distributed.initialize(coordinator_address=f"127.0.0.1:{port}", num_processes=2, process_id=int(number))
import numpy as np
from flowjax.oracle import Oracle
from kernels.posterior.distributed.sharded import rows_of_process, shard_samples
from tests.kernels.posterior.distributed.sharded_test import CLUSTERS, COUNTS, LABELS, on_path
mesh = jax.make_mesh((4, 1), ("samples", "queries"))
rows = rows_of_process(len(CLUSTERS), mesh)
assert len(rows) < 0.6 * len(CLUSTERS)
oracle = Oracle(shard_samples(CLUSTERS[rows], mesh, labels=LABELS[rows], counts=COUNTS[rows], n=len(CLUSTERS)))
t = np.linspace(0.05, 0.999, 12).astype(np.float32)
label = np.arange(12) % 4 - 1
out = oracle(on_path(CLUSTERS, t), t, label)
assert out.velocity.is_fully_replicated
try:
    oracle(on_path(CLUSTERS, t), t, label + 3)
except ValueError as error:
    assert "has no samples" in str(error)
else:
    raise AssertionError("a label without samples was not refused")
if number == "0":
    np.savez(path, **{name: np.asarray(v) for name, v in vars(out).items()})
"""


@pytest.mark.slow
def test_two_processes_that_hold_half_each(tmp_path):
    """Neither has seen the other's rows; both give the answer of one process that has all."""
    run_two(WORKER, tmp_path / "out.npz", tmp_path, devices=2)
    t = np.linspace(0.05, 0.999, 12).astype(np.float32)
    got = OracleOutput(**np.load(tmp_path / "out.npz"))
    same(got, Oracle(CLUSTERS, LABELS, counts=COUNTS)(on_path(CLUSTERS, t), t, np.arange(12) % 4 - 1))
