"""Samples of a trained model: as a picture, and as the .npz that evaluation suites read.

    python -m experiments.sample --config.model.path=runs/train                               # a folder of experiments.train
    python -m experiments.sample --config.model.path=lightningdit-xl.pt --config.num_samples=50000
    python -m experiments.sample --config.model.path=runs/train --config.guidance.scale=2.5 --config.guidance.interval='(0.1, 0.6)'
    python -m experiments.sample --config.model.path=runs/train --config.guide.path=runs/smaller --config.guidance.scale=2   # autoguidance
    python -m experiments.sample --config.model.path=runs/train --config.quality.features=classifier   # and how good they are
    python -m experiments.sample --config.model.factory=my_model:make                          # a model of your own: docs/your-model.md
    python -m experiments.sample                                                               # trains on digits first

Writes to --workdir (runs/sample): samples.npz with `arr_0`, uint8 `[N, H, W, 3]`, ADM's convention (grey images three times), and
`labels`; latents.npz instead, float32 and un-normalised, where the model makes latents and no decoder is given; figures/,
config.json, summary.json, samples.csv (a label for each) and report.html.
"""

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.common import app
from experiments.common.sample_quality import Quality
from experiments.common.trained_models import MODELS, guide_of, obtain, own_data
from flowjax.data.formats.pixels import to_bytes
from flowjax.data.normalization import IDENTITY, Normalization
from flowjax.fields import Field, autoguided, convert_interval, guided
from flowjax.models.autoencoder import load_decoder
from flowjax.models.flow import ExternalFlow, Flow
from flowjax.path import Path, RectifiedFlow
from flowjax.reporting.page import Section
from flowjax.reporting.samples import sample_grid
from flowjax.reporting.workdir import WorkDir
from flowjax.sampling import Solver, draw_labels, in_batches, noise, sample
from flowjax.schedules import shift, uniform_timesteps
from flowjax.stochastic_sampling import check_diffusion, sample_stochastic
from flowjax.training.sharding import make_mesh

LIVE = (MODELS,)
FREE = app.ANY


# It is a little over sixty lines: what is done and what is written of it, in one order.
def run(config: ConfigDict, workdir: WorkDir) -> str:
    """Sample and write; returns the sentence to take away."""
    started = time.perf_counter()
    app.check_at_least(config, num_samples=1, grid=1)
    solver = Solver(config.solver, config.tolerance)
    if config.diffusion:
        check_diffusion(config.diffusion, config.diffusion_scale)
    _guidance_interval(config, RectifiedFlow())  # what can be seen before a model is trained
    edges = jnp.asarray(shift(uniform_timesteps(config.num_steps), config.shift), jnp.float32)
    flow = obtain(config.model, workdir)
    field, label = _field(config, flow), _labels(config, flow)
    decode = _decoder(config, flow)
    quality = Quality(config.quality, flow, config.data, config.seed) if config.quality.features else None
    if (quality is None or config.quality.reference) and (config.data.source or config.data.path):
        own_data(flow, config.data)  # sees whether the model fits the data, and whether it runs the right way round
    edges = edges * jnp.float32(flow.path.t_max)
    sampling = time.perf_counter()
    found = _sampled(config, flow, _program(config, field, edges, solver, flow.path), label)
    seconds = time.perf_counter() - sampling
    shown, value_range = decode(found)
    arrays = {} if label is None else {"labels": label}
    if config.decoder or flow.about.get("value_range"):
        file = "samples.npz"
        arrays["arr_0"] = to_bytes(shown, value_range)
    else:
        file = "latents.npz"
        arrays["arr_0"] = shown
    np.savez(workdir.path(file), **arrays)  # type: ignore[arg-type]
    classes = min(flow.num_classes or 10, 10)
    columns = 10 // classes * classes  # a class has columns of its own
    picture = workdir.path("figures/samples.png")
    sample_grid(shown[: config.grid], value_range, columns).save(picture)

    measured = {} if quality is None else {"quality": quality(found, config.seed)}
    takeaway = (
        f"{config.num_samples:,} samples of {flow.source} at {config.num_samples / seconds:.1f} a second, compilation included, in {file}."
    )
    if measured:
        told = measured["quality"]
        takeaway += f" Their Fréchet distance from real data is {told['frechet']:.3g}, in {told['features']} features."
    origin = app.provenance("sample", config, started)
    numbers = np.zeros(len(found), np.int32) if label is None else label
    workdir.write_csv("samples.csv", [{"sample": i, "label": int(y)} for i, y in enumerate(numbers)])
    workdir.write_json(
        "summary.json",
        {
            "model": {"source": flow.source, "dataset": flow.about.get("dataset"), "frechet_ratio": flow.frechet_ratio},
            "num_samples": config.num_samples,
            "file": file,
            "steps": config.num_steps,
            "samples_per_second": config.num_samples / seconds,
            **measured,
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "samples_per_second": "compilation included"},
            **origin,
        },
    )
    solved = f"Euler-Maruyama, diffusion {config.diffusion_scale:g} x {config.diffusion}" if config.diffusion else config.solver
    how = f"{config.num_steps} steps of {solved}, shift {config.shift:g}, guidance {config.guidance.scale:g}"
    how += f" by {config.guide.path or config.guide.factory}" if config.guide.path or config.guide.factory else ""
    sections = [Section("Samples", f"{how}.", picture, alt="Samples")]
    if measured:
        text = "The Fréchet distance, extrapolated to infinitely many samples, with 95 % interval; precision and recall."
        sections.append(Section("How good they are", text, table=_quality_rows(measured["quality"])))
    workdir.write_report(f"Samples of {flow.name}", takeaway, sections, origin)
    return takeaway


def _field(config: ConfigDict, flow: Flow) -> Field:
    if len(flow.image_shape) != 3:
        raise ValueError(f"{flow.source} makes samples of shape {flow.image_shape}: expected images or latents (H, W, C), to be shown")
    wanted, interval = config.guidance, _guidance_interval(config, flow.path)
    if wanted.channels < 0 or wanted.channels > flow.image_shape[2]:
        raise ValueError(f"guidance.channels = {wanted.channels}: expected 0, for all, to {flow.image_shape[2]}")
    guide = guide_of(config.guide, flow)
    if guide is not None and wanted.channels:
        raise ValueError(f"guidance.channels = {wanted.channels}: a weaker model guides all channels: leave it at 0")
    field = guided(flow.field, wanted.scale, interval, wanted.channels or "all")
    if wanted.scale == 1:
        return flow.field
    if guide is not None:
        return autoguided(flow.field, guide.field, wanted.scale, interval)
    if not flow.num_classes:
        raise ValueError(f"guidance.scale = {wanted.scale}: {flow.source} was trained without classes, and has nothing to be guided by")
    return field


def _sampled(config: ConfigDict, flow: Flow, program: Callable[[Any, Any], Any], label: np.ndarray | None) -> np.ndarray:
    """All samples, batch by batch, over all devices; a model from elsewhere runs on one device of its own, whatever JAX has."""
    mesh = make_mesh(0, 1) if jax.device_count() > 1 and not isinstance(flow, ExternalFlow) else None
    batch = config.batch_size if mesh is None else mesh.size * math.ceil(config.batch_size / mesh.size)
    x_0 = noise(config.num_samples, flow.image_shape, config.seed)
    batches = in_batches(program, x_0, label, batch, mesh)
    found = np.concatenate(list(app.progress("batches", math.ceil(len(x_0) / batch))(batches)))
    broken = int((~np.isfinite(found)).any(axis=(1, 2, 3)).sum())
    if broken:
        raise ValueError(f"{broken} of {len(found)} samples are NaN or infinite: see guidance")
    return found


def _program(config: ConfigDict, field: Field, edges: jax.Array, solver: Solver, path: Path) -> Callable[[Any, Any], Any]:
    """The program that samples a batch: from x_0 and labels to samples."""
    seeds = itertools.count(config.seed * 1_000_003 % 2**30)  # of the noise that is added: another for each batch

    def program(x: Any, y: Any) -> Any:
        if not config.diffusion:
            return sample(field, x, edges, y, solver=solver)
        return sample_stochastic(field, x, edges, y, diffusion=config.diffusion, scale=config.diffusion_scale, seed=next(seeds), path=path)

    return program


def _guidance_interval(config: ConfigDict, path: Path) -> tuple[float, float]:
    low, high = config.guidance.interval
    return convert_interval((float(low), float(high)), config.guidance.coordinate, "t", path)


def _labels(config: ConfigDict, flow: Flow) -> np.ndarray | None:
    if config.labels in ("equal", "random"):
        return draw_labels(config.num_samples, flow.num_classes, config.labels, config.seed) if flow.num_classes else None
    words = config.labels.replace(",", " ").split()
    asked = np.array([int(word) for word in words if word.isdigit()], np.int32)
    if not words or len(asked) < len(words) or not (asked < flow.num_classes).all():
        raise ValueError(f"labels = {config.labels!r}: expected equal, random, or classes from 0 to {flow.num_classes - 1}, as in 2,7")
    return np.resize(asked, config.num_samples)


def _decoder(config: ConfigDict, flow: Flow) -> Any:
    """The map from the model's values to saved images, and the range of these."""
    held = flow.about.get("normalization")
    normalization = Normalization(np.asarray(held["mean"]), np.asarray(held["std"]), held["multiplier"]) if held else IDENTITY
    value_range = flow.about.get("value_range")
    if config.decoder:
        decode = jax.jit(load_decoder(config.decoder))
        return lambda x: (np.concatenate([np.asarray(decode(part)) for part in _parts(normalization.inverse(x))]), (-1.0, 1.0))
    if value_range is not None:  # images: shown as the model sees them
        return lambda x: (x, tuple(value_range))
    return lambda x: (normalization.inverse(x), (-3.0, 3.0))


def _quality_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [{"measure": f"Fréchet distance, {found['features']} features", "value": found["frechet"]}]
    return rows + [{"measure": name.replace("_", ", "), **part} for name, part in found.items() if isinstance(part, dict)]


def _parts(x: np.ndarray, size: int = 256) -> list[np.ndarray]:
    return np.array_split(x, -(-len(x) // size))


if __name__ == "__main__":
    app.main("sample", run, live=LIVE, free=FREE)
