"""A function on PyTorch tensors, NumPy arrays or JAX arrays, called from JAX: jitted or not, in batches, channels where it wants them.

PyTorch and NumPy run on the host through `jax.pure_callback`. PyTorch is imported only for a function that needs it, and is asked for
gradients only where a caller differentiates.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

FRAMEWORKS = ("jax", "torch", "numpy")
LAYOUTS = ("NHWC", "NCHW")
Label = Int[Array, " B"] | None


class ForeignFunction:
    """`fn(x, time, label)` of any framework as a function of JAX arrays; hashed by identity, so it is static under `jax.jit`.

    Args:
      fn: a callable. x arrives as float32 `[rows, *shape]` (in the dtype of the parameters, if fn is a `torch.nn.Module`), time as `[rows]`
        float32, or int32 for discrete steps, label as `[rows]` or None. PyTorch gets whole numbers as int64, which embeddings want.
      framework: one of `FRAMEWORKS`; None: found out by the first call, which may call fn once in each.
      layout: NCHW: fn has channels first, and JAX has them last. Samples of one axis have no channels to move.
      batch_size: rows that fn is given at once; None: all.
      device: of PyTorch, as "cuda:1"; None: where the parameters of fn lie, or the CPU if fn is no `torch.nn.Module`.

    Raises:
      ValueError: an unknown framework or layout, a batch size below 1, a function that does not take three arguments, a module in training
        mode.
    """

    def __init__(self, fn: Callable[..., Any], framework: str | None, layout: str, batch_size: int | None, device: str | None):
        if not callable(fn):
            raise ValueError(f"fn is a {type(fn).__name__}: expected a function of (x, time, label)")
        if framework not in (None, *FRAMEWORKS):
            raise ValueError(f"framework = {framework!r}: expected None, or one of {', '.join(FRAMEWORKS)}")
        if layout not in LAYOUTS:
            raise ValueError(f"layout = {layout!r}: expected NHWC, channels last, or NCHW, channels first")
        if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"batch_size = {batch_size!r}: expected how many rows the model is given at once, at least 1, or None for all")
        _check_arguments(fn)
        self._fn, self._first, self._batch_size, self._device = fn, layout == "NCHW", batch_size, device
        self._framework = framework or _framework_of(fn)
        self._seen: set[Any] = set()
        if self._framework == "torch":
            self._check_mode()

    @property
    def framework(self) -> str | None:
        """The framework of fn; None until it is known."""
        return self._framework

    def __call__(self, x: Float[Array, "B *shape"], time: Num[Array, " B"], label: Label) -> Float[Array, "B *shape"]:
        """What fn returns, float32, of the shape of x.

        Raises:
          ValueError: fn fails, or returns another shape: one line that says which, and what to do.
        """
        x = jnp.moveaxis(x, -1, 1) if self._first and x.ndim > 2 else x
        self._look(x.shape[1:], time.dtype, label is not None)
        arguments = (x, time) if label is None else (x, time, label)
        if self._framework == "jax":
            found = jnp.concatenate([self._checked(self._fn(*_three(part)), part[0].shape) for part in self._parts(arguments)])
            found = found.astype(jnp.float32)
        elif any(isinstance(part, jax.core.Tracer) for part in arguments):
            found = _called(self, *arguments)
        else:
            found = jnp.asarray(self._on_host(*arguments))
        return jnp.moveaxis(found, 1, -1) if self._first and x.ndim > 2 else found

    def _parts(self, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        size = self._batch_size or max(1, len(arguments[0]))
        return [tuple(part[start : start + size] for part in arguments) for start in range(0, max(1, len(arguments[0])), size)]

    def _on_host(self, *arguments: Any) -> np.ndarray:
        return np.concatenate([self._evaluate(*_three(part)) for part in self._parts(arguments)])

    def _evaluate(self, x: Any, time: Any, label: Any) -> np.ndarray:
        """One call, outside of any trace."""
        if self._framework == "torch":
            import torch

            with torch.no_grad():
                given = self._tensors(x, time, label)
                return self._checked(self._fn(*given), x.shape).to(torch.float32).cpu().numpy()
        found = self._checked(self._fn(*(None if part is None else np.array(part) for part in (x, time, label))), x.shape)
        return np.asarray(found, np.float32)

    def _tensors(self, *arguments: Any) -> list[Any]:
        """Copies: fn may write into them. Shared through DLPack on the way, from whichever device they lie on."""
        import torch

        parameter = next((part for part in _parameters(self._fn) if part.is_floating_point()), None)
        device = self._device or ("cpu" if parameter is None else parameter.device)
        given: list[Any] = []
        for part in arguments:
            if part is None:
                given.append(None)
                continue
            tensor = torch.from_dlpack(part) if isinstance(part, jax.Array) else torch.tensor(part)
            given.append(tensor.to(device, tensor.dtype if tensor.is_floating_point() else torch.int64, copy=True))
        if parameter is not None:
            given[0] = given[0].to(parameter.dtype)
        return given

    def _gradient(self, x: Any, time: Any, label: Any, cotangent: Any) -> np.ndarray:
        """The product of a cotangent with fn's Jacobian in x."""
        import torch

        parts = []
        arguments = (x, time, cotangent) if label is None else (x, time, cotangent, label)
        for part in self._parts(arguments):
            own_x, own_time, pulled, own_label = (*part, None)[:4]
            given = self._tensors(own_x, own_time, own_label)
            given[0].requires_grad_()
            with torch.enable_grad():
                found = self._checked(self._fn(*given), own_x.shape)
                (gradient,) = torch.autograd.grad(found, given[0], self._tensors(pulled)[0].to(found.dtype))
            parts.append(gradient.to(torch.float32).cpu().numpy())
        return np.concatenate(parts)

    def _look(self, shape: tuple[int, ...], dtype: Any, labelled: bool) -> None:
        """Call fn once, on one row, before a compiled program calls it, so that an error is reported in one line."""
        key = (shape, np.dtype(dtype), labelled)
        if key in self._seen:
            return
        x = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
        time = np.full(1, 0.5, np.float32).astype(dtype)
        given = (x, time, np.zeros(1, np.int32) if labelled else None)
        if self._framework is not None:
            self._try(self._framework, given)
        else:
            failed: dict[str, str] = {}
            for framework in ("jax", "torch", "numpy", "torch"):  # the last: fn imports PyTorch when it is called
                if framework in failed or (framework == "torch" and "torch" not in sys.modules):
                    continue
                try:
                    self._try(framework, given)
                except WrongShape:
                    raise
                except ValueError as error:
                    failed[framework] = str(error)
                else:
                    self._framework = framework
                    break
            else:
                told = "; ".join(f"on {name}: {error}" for name, error in failed.items())
                raise ValueError(f"fn computes with no framework: give framework=, one of {', '.join(FRAMEWORKS)} ({told})")
        self._seen.add(key)

    def _try(self, framework: str, given: tuple[Any, ...]) -> None:
        """Raise a ValueError unless fn can be called in a framework."""
        before, self._framework = self._framework, framework
        try:
            if framework == "jax":
                asked = [None if part is None else jax.ShapeDtypeStruct(part.shape, part.dtype) for part in given]
                jax.eval_shape(lambda *arguments: self._checked(self._fn(*arguments), given[0].shape), *asked)
            else:
                self._evaluate(*given)
        except WrongResult:
            raise
        except Exception as error:
            raise ValueError(_failure(error, given[0].shape)) from error
        finally:
            self._framework = before

    def _checked(self, found: Any, shape: tuple[int, ...]) -> Any:
        """The result of fn, unpacked from the records that diffusers returns, and validated."""
        found = getattr(found, "sample", found)
        kind: Any = {"jax": jax.Array, "torch": _tensor_type(), "numpy": np.ndarray}[self._framework or "numpy"]
        if not isinstance(found, kind):
            raise WrongResult(f"the model returns a {type(found).__name__}, expected an array of {self._framework}, of the shape of x")
        if tuple(found.shape) == tuple(shape):
            return found
        told = f"the model returns {tuple(found.shape)} for x {tuple(shape)}, expected the same"
        if len(found.shape) == len(shape) > 2 and found.shape[1] == 2 * shape[1]:
            told += ": where its second half is a variance (learn_sigma), let fn return the first, out[:, : out.shape[1] // 2]"
        elif len(shape) > 2:
            told += ": is layout= right (NCHW: fn has channels first), and does it make samples of this shape?"
        raise WrongShape(told)

    def _check_mode(self) -> None:
        module = _module(self._fn)
        if module is not None and module.training:
            raise ValueError(f"{type(module).__name__} is in training mode, where dropout is on: call its .eval() first")


class WrongResult(ValueError):
    """A result that is no array of the framework."""


class WrongShape(WrongResult):
    """A result of another shape than x."""


def _failure(error: Exception, shape: tuple[int, ...]) -> str:
    text = str(error).strip().splitlines()
    return f"the model fails on x {shape}: {type(error).__name__}: {text[0] if text else ''}"


def _three(part: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    return part[0], part[1], part[2] if len(part) > 2 else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _called(function: ForeignFunction, *arguments: Array) -> Array:
    result = jax.ShapeDtypeStruct(arguments[0].shape, jnp.float32)
    return jax.pure_callback(function._on_host, result, *arguments, vmap_method="sequential")


def _forward(function: ForeignFunction, *arguments: Array) -> tuple[Array, tuple[Array, ...]]:
    return _called(function, *arguments), arguments


def _backward(function: ForeignFunction, arguments: tuple[Array, ...], cotangent: Array) -> tuple[Array | None, ...]:
    if function.framework != "torch":
        raise NotImplementedError("a NumPy function has no derivative: write it in PyTorch or JAX, or estimate nothing that needs one")
    x, time, label = _three(arguments)
    result = jax.ShapeDtypeStruct(x.shape, jnp.float32)
    pulled = jax.pure_callback(function._gradient, result, x, time, label, cotangent, vmap_method="sequential")
    return (pulled, *(None for _ in arguments[1:]))


_called.defvjp(_forward, _backward)


def _module(fn: Callable[..., Any]) -> Any:
    """The `torch.nn.Module` that fn is, or is a method of."""
    torch = sys.modules.get("torch")
    owner = getattr(fn, "__self__", fn)
    return owner if torch is not None and isinstance(owner, torch.nn.Module) else None


def _parameters(fn: Callable[..., Any]) -> list[Any]:
    module = _module(fn)
    return [] if module is None else list(module.parameters())


def _framework_of(fn: Callable[..., Any]) -> str | None:
    """The framework that the callable itself tells; None if it does not."""
    nnx = sys.modules.get("flax.nnx")
    in_flax = nnx is not None and isinstance(fn, nnx.Module)
    return "torch" if _module(fn) is not None else "jax" if in_flax else None


def _tensor_type() -> type:
    torch = sys.modules.get("torch")
    return type(None) if torch is None else torch.Tensor


def _check_arguments(fn: Any) -> None:
    try:
        inspect.signature(fn.forward if _module(fn) is fn else fn).bind(0, 0, 0)
    except TypeError as error:
        raise ValueError(
            f"fn is called as fn(x, time, label), and {getattr(fn, '__name__', type(fn).__name__)} cannot be ({error}): "
            "wrap it, as in lambda x, time, label: model(x, time)"
        ) from None
    except ValueError:  # written in C: it does not say what it takes
        return
