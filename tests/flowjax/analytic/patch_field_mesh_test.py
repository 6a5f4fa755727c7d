"""The patch field of images over the devices of a mesh, against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analytic import AnalyticField, patch
from flowjax.path import Path
from kernels.patches.reference import patch_means_ref
from kernels.posterior.distributed.sharded import shard_samples
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, coefficients, error, images, queries, velocity


def mesh_of(samples: int, across: int) -> jax.sharding.Mesh:
    return jax.make_mesh((samples, across), ("samples", "queries"))


ALL = ((3, False, "position"), (3, True, "position"), (5, True, "padding"), (9, True, "padding"))


@pytest.mark.slow
@pytest.mark.parametrize(("path", "kinds"), [(PATHS[0], ALL), pytest.param(PATHS[2], ALL[1:2], marks=pytest.mark.long)])
def test_it_is_the_definition_at_every_t(path: Path, kinds: tuple[tuple[int, bool, str], ...]) -> None:
    y = images()
    for size, anywhere, borders in kinds:
        field = patch(y, LABELS, path, size=size, anywhere=anywhere, borders=borders, mesh=mesh_of(4, 2))  # 30 images on 4 devices
        settings = {"size": size, "anywhere": anywhere, "position": borders == "position"}
        for t in (0.02, 0.3, 0.9, 0.995):
            alpha, sigma, _, _ = coefficients(path, t)
            x = queries(y, path, t)
            each = zip(x, ASKED, strict=True)
            wanted = np.stack([patch_means_ref(y if c < 0 else y[c == LABELS], one, alpha, sigma, **settings) for one, c in each])
            assert error(field.denoised(x, t, ASKED), wanted) < 1e-5
            assert error(field(x, t, ASKED), velocity(path, t, x, wanted)) < 1e-5


def test_large_patches_are_as_exact() -> None:
    """Scores of hundreds of nats, whose rounding is largest where neither sum is small."""
    y = np.random.default_rng(3).uniform(-1, 1, (40, 16, 16)).astype(np.float32)
    host, devices = (patch(y, size=31, **where) for where in ({}, {"mesh": mesh_of(8, 1)}))
    for t in (0.02, 0.17, 0.33, 0.34, 0.9):
        x = queries(y, PATHS[0], t)
        assert error(devices.denoised(x, t), np.asarray(host.denoised(x, t), np.float64)) < 1e-5


@pytest.mark.slow
def test_the_size_may_follow_t_and_differ_within_a_batch() -> None:
    y, mesh = images((5, 5)), mesh_of(2, 1)
    x, t = queries(y, PATHS[0], 0.5), np.array([0.2, 0.5, 0.7, 0.9], np.float32)
    for size in ({0.0: 9, 0.4: 3, 0.7: 1}, lambda t: 9 if t < 0.4 else 3):
        host, devices = patch(y, size=size), patch(y, size=size, mesh=mesh)
        assert error(devices(x, t), np.asarray(host(x, t))) < 1e-5
    table, function = (patch(y, size=size, mesh=mesh) for size in ({0.0: 9, 0.4: 3, 0.7: 1}, lambda t: 3))
    np.testing.assert_allclose(jax.jit(lambda f, x, t: f(x, t))(table, x, t), table(x, t), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="a number or a table"):
        jax.jit(lambda f, t: f(x, t))(function, t)


@pytest.mark.slow
def test_compiled_programs_take_it() -> None:
    y, mesh = images((3, 4)), mesh_of(2, 2)
    field, x, label = patch(y, LABELS, size=3, mesh=mesh), jnp.asarray(queries(y, PATHS[0], 0.3)), jnp.asarray(ASKED)
    assert isinstance(field, AnalyticField)
    mapped = jax.vmap(lambda x, c: field(x[None], 0.3, c[None])[0])(x, label)
    np.testing.assert_allclose(mapped, field(x, 0.3, label), rtol=1e-5, atol=1e-6)
    spoilt = jax.jit(lambda f, x, t, c: f(x, t, c))(field, x.at[0].set(jnp.nan), jnp.array([0.3, 1, 0.3, 0.3]), jnp.array([0, 1, 9, 1]))
    assert np.isnan(spoilt[:3]).all()
    assert np.isfinite(spoilt[3]).all()


@pytest.mark.slow
def test_data_of_any_size_and_bytes() -> None:
    mesh = mesh_of(2, 1)
    y = images()
    x = queries(y, PATHS[0], 0.4)
    wanted = patch(y, LABELS, size=3).denoised(x, 0.4, ASKED)
    for unit in (1e15, 1e-15):
        # the noise has the size of the data: rectified flow in that unit
        field = patch((y * unit).astype(np.float32), LABELS, size=3, mesh=mesh)
        assert np.isfinite(field.denoised((x * unit).astype(np.float32), 0.999, ASKED)).all()
    grey = np.random.default_rng(0).integers(0, 256, (20, 4, 4)).astype(np.uint8)
    noisy = np.asarray(grey[:2], np.float32) * np.float32(0.5) + 1
    assert error(patch(grey, size=3, mesh=mesh).denoised(noisy, 0.5), np.asarray(patch(grey, size=3).denoised(noisy, 0.5))) < 1e-5
    given = patch(shard_samples(y, mesh, labels=LABELS), size=3)
    assert error(given.denoised(x, 0.4, ASKED), np.asarray(wanted)) < 1e-5


def test_bad_input_is_refused_in_a_line() -> None:
    y, mesh = images((3, 4)), mesh_of(2, 1)
    field = patch(y, LABELS, size=3, mesh=mesh)
    assert field(y[:0], 0.5).shape == (0, 3, 4)
    for call, told in (
        (lambda: field(y[:1], 1.0), "give a t below 1"),
        (lambda: field(y[:1], 0.5, np.array([5])), "label 5 has no samples"),
        (lambda: patch(y, size=4, mesh=mesh), "expected an odd number"),
        (lambda: patch(y, size=3, borders="zeros", mesh=mesh), "borders = 'zeros'"),
        (lambda: patch(y, size=3, mesh=mesh, shared=True), "leave `shared` out"),
        (lambda: patch(y, size=3, mesh=jax.make_mesh((2,), ("devices",))), "with the axes"),
        (lambda: patch(y[:1], size=3, mesh=mesh), "do not fit 2 shards"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
