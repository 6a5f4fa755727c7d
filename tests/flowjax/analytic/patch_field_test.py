"""The patch field against loops, the oracle as its limit, its sizes, and its calls from compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.analytic import AnalyticField, gaussian, patch, pca_local, smoothed
from flowjax.fields import Field, guided
from flowjax.oracle import Oracle
from flowjax.path import Path
from flowjax.sampling import sample
from kernels.patches.reference import patch_means_ref
from tests.flowjax.analytic.small_data import ASKED, LABELS, PATHS, coefficients, error, images, queries, velocity


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_velocity_is_that_of_the_definition(path: Path) -> None:
    y = images()
    for anywhere, borders in ((False, "position"), (True, "position"), (True, "padding")):
        field = patch(y, LABELS, path, size=3, anywhere=anywhere, borders=borders)
        for t in (0.1, 0.9):
            alpha, sigma, _, _ = coefficients(path, t)
            x = queries(y, path, t)
            settings = {"size": 3, "anywhere": anywhere, "position": borders == "position"}
            each = zip(x, ASKED, strict=True)
            wanted = np.stack([patch_means_ref(y if c < 0 else y[c == LABELS], one, alpha, sigma, **settings) for one, c in each])
            assert error(field.denoised(x, t, ASKED), wanted) < 1e-5
            assert error(field(x, np.full(4, t, np.float32), ASKED), velocity(path, t, x, wanted)) < 1e-5


def test_with_patches_as_large_as_the_image_it_is_the_oracle() -> None:
    y = images()
    for t in (0.0, 0.3, 0.95):
        x = queries(y, PATHS[0], t)
        wanted = np.asarray(Oracle(y, LABELS)(x, t, ASKED).velocity)
        for anywhere, borders in ((False, "position"), (False, "padding"), (True, "position")):
            assert error(patch(y, LABELS, size=9, anywhere=anywhere, borders=borders)(x, t, ASKED), wanted) < 1e-5
        assert (error(patch(y, LABELS, size=3)(x, t, ASKED), wanted) > 1e-3) == (t == 0.3)


def test_the_size_may_follow_t() -> None:
    y = images((5, 5))
    x = queries(y, PATHS[0], 0.5)
    table, function = patch(y, size={0.0: 9, 0.4: 3, 0.8: 1}), patch(y, size=lambda t: 9 if t < 0.4 else 3)
    assert [table.size(t) for t in (0.1, 0.4, 0.79, 1.0)] == [9, 3, 3, 1]
    assert patch(y, size={0.5: 5, 0.7: 3}).size(0.1) == 5
    assert patch(y, size={0.5: 5, 0.7: 3}).size(float(np.float32(0.7))) == 3  # as t comes, a little below 0.7
    for t, size in ((0.2, 9), (0.5, 3)):
        np.testing.assert_array_equal(table(x, t), patch(y, size=size)(x, t))
        np.testing.assert_array_equal(function(x, t), table(x, t))
    both = np.array([0.2, 0.5, 0.2, 0.5], np.float32)
    np.testing.assert_allclose(table(x, both)[1::2], patch(y, size=3)(x, 0.5)[1::2], rtol=1e-6)


def test_compiled_programs_call_it_and_it_is_a_field_like_others() -> None:
    y = images((3, 4))
    fields = [patch(y, LABELS, size=3), pca_local(y, LABELS), smoothed(y, LABELS, noise=0.1), gaussian(y, LABELS)]
    assert all(isinstance(field, Field) and isinstance(field, AnalyticField) for field in fields)
    field, x, label = fields[0], jnp.asarray(queries(y, PATHS[0], 0.3)), jnp.asarray(ASKED)
    np.testing.assert_allclose(jax.jit(lambda f, x, t: f(x, t, label))(field, x, jnp.float32(0.3)), field(x, 0.3, ASKED), rtol=1e-6)
    end = np.asarray(sample(guided(field, 1.0), x, jnp.linspace(0.3, 1, 5), label))
    step = np.asarray(x, np.float32)
    for t in np.linspace(0.3, 1, 5)[:-1]:
        step = step + np.float32(0.175) * np.asarray(field(step, np.float32(t), ASKED))
    np.testing.assert_allclose(end, step, rtol=1e-4, atol=1e-5)
    unknown = jax.jit(lambda f, x, c: f(x, jnp.float32(0.3), c))(field, x, jnp.array([0, 9, 2, 1], jnp.int32))
    assert np.isnan(unknown[1]).all()
    assert np.isfinite(unknown[0]).all()


def test_bad_input_is_refused_in_a_line() -> None:
    y = images((3, 4))
    assert patch(y, size=3)(y[:0], 0.5).shape == (0, 3, 4)  # no queries are no error
    for size in (0, 2, -3, 2.5, float("nan"), "3"):
        with pytest.raises(ValueError, match="expected an odd number of pixels"):
            patch(y, size=lambda t, size=size: size)(y[:1], 0.5)  # type: ignore[misc]
    with pytest.raises(ValueError, match="expected an odd number of pixels"):
        patch(y, size=4)
    with pytest.raises(ValueError, match="expected an odd number of pixels"):
        patch(y, size={0.0: 3, 0.5: 4})
    with pytest.raises(ValueError, match="borders = 'zeros'"):
        patch(y, size=3, borders="zeros")
    with pytest.raises(ValueError, match="expected images"):
        patch(y.reshape(30, 3, 2, 2, 1), size=3)
    with pytest.raises(ValueError, match="at least one row"):
        patch(y, size={})
    with pytest.raises(ValueError, match=r"t = 1: .* give a t below 1"):
        patch(y, size=3)(y[:1], 1.0)
    with pytest.raises(ValueError, match="label 5 has no samples"):
        patch(y, LABELS, size=3)(y[:1], 0.5, np.array([5]))
