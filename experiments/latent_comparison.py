"""In which latent space is the loss of a model smooth through refinement, and in which is it wavy?

    python -m experiments.latent_comparison                                    # digits: pixels, patches by PCA, two autoencoders
    python -m experiments.latent_comparison --config.spaces="('mine=latents.npy', 'theirs=FOLDER_OF_SHARDS')"   # a model is trained on each
    python -m experiments.latent_comparison --config=experiments/configs/latent_comparison.py:imagenet \\
        --config.spaces="('vavae=VAVAE_SHARDS@B1-vavae.pt', 'sdvae=SDVAE_SHARDS@B1-sdvae.pt')"

Finding 9 of arXiv 2512.02826. For each space: the error of a model against the oracle of the training set, against t; where the space
turns; its spectrum. How far the loss is from a parabola in refinement, on a logarithmic scale, is its waviness, with an interval over
queries: shapes are compared, never values. Samples of any shape will do, single vectors included. Writes config.json, summary.json,
spaces.csv, spaces.md, loss.csv, figures/ and report.html to --workdir (runs/latent_comparison), and as it goes models/, spaces/ and cells/:
`--resume` encodes, trains and measures nothing again.
"""

import dataclasses
import math
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from experiments.common import app
from experiments.common.data import load_data, open_data
from experiments.common.frechet_scores import turn_and_advice
from experiments.common.timestep_errors import Errors
from experiments.common.trained_models import CELLS, MODELS, about_model, made, own_data, strength, train_within, training_config
from experiments.configs import train as presets
from experiments.configs.data import data_config
from flowjax import stages
from flowjax.analysis.statistics import Interval
from flowjax.analysis.verdict import Verdict, judge
from flowjax.data.cache import cached
from flowjax.data.encoder import Encoder, PatchPca
from flowjax.metrics.loss_by_t import ErrorsByTime
from flowjax.metrics.waviness import Waviness, waviness
from flowjax.models.autoencoder import FILE, TrainedEncoder, load_autoencoder
from flowjax.models.flow import Flow
from flowjax.models.trained import load_trained
from flowjax.reporting import analysis_figures
from flowjax.reporting.page import Section, beside_the_paper
from flowjax.reporting.workdir import WorkDir
from flowjax.stages import TurningPoint

SPACES = "spaces"
LIVE = (MODELS, SPACES, CELLS)
ON_DISK = True
"""Samples that were encoded are read from its folder."""
FREE = app.ANY
MADE = ("pixels", "pca", "plain", "aligned")
"""The spaces that can be made of images: `plain` and `aligned` are autoencoders, trained here."""


class Space(NamedTuple):
    """A space that is compared."""

    name: str
    path: str
    """Of the latents; "": made of the images."""
    checkpoint: str
    """Of a model of them; "": trained here."""


class Found(NamedTuple):
    """Measurements in a space."""

    shape: tuple[int, ...]
    flow: Flow
    turn: TurningPoint
    eigenvalues: np.ndarray
    errors: ErrorsByTime
    waves: Waviness | None
    """Of refinement; None where the space does not turn, or too late to tell."""


def run(config: ConfigDict, workdir: WorkDir) -> str:
    """The whole experiment; returns the sentence to take away."""
    started = time.perf_counter()
    spaces = _spaces(config)
    found = {space.name: _found(config, space, workdir) for space in app.progress("spaces")(spaces)}
    ratios = [one.flow.frechet_ratio for one in found.values()]
    enough = [strength(found[name].flow)["enough"] for name in (config.smooth, config.wavy)]
    verdict = _verdict(config, found, None if None in enough else all(enough))

    takeaway = _takeaway(found, verdict)
    origin = app.provenance("latent_comparison", config, started)
    rows = [_row(name, one) for name, one in found.items()]
    workdir.write_table("spaces", rows)
    workdir.write_csv("loss.csv", [row for name, one in found.items() for row in _loss_rows(name, one)])
    workdir.write_json(
        "summary.json",
        {
            "spaces": {
                name: {
                    "shape": one.shape,
                    "model": about_model(one.flow),
                    "turning_point": dataclasses.asdict(one.turn),
                    "effective_dimensions": _effective(one.eigenvalues),
                    "waviness": None if one.waves is None else one.waves.value._asdict(),
                }
                for name, one in found.items()
            },
            "frechet_ratios": ratios,
            "num_queries": config.num_queries,
            "verdict": dataclasses.asdict(verdict),
            "takeaway": takeaway,
            "units": {"t": "0 = noise, 1 = data", "waviness": "root mean square of the residual of log loss about a parabola in t"},
            **origin,
        },
    )
    sections = [
        *_drawn(config.num_queries, workdir, found),
        Section("In numbers", "Effective dimensions: (Σ λ)² / Σ λ².", table=rows),
        beside_the_paper(_PAPER, verdict),
    ]
    workdir.write_report("Smooth and wavy latent spaces", takeaway, sections, origin)
    return takeaway


def _drawn(num_queries: int, workdir: WorkDir, found: dict[str, Found]) -> list[Section]:
    """The figures."""
    curves = {name: (one.errors.mean(), one.turn.measured, None if one.waves is None else one.waves.fit) for name, one in found.items()}
    waves = {name: one.waves.value for name, one in found.items() if one.waves is not None}
    return [
        Section(
            "The loss against t",
            "Against the oracle of the training set, over its mean in refinement: only shapes can be compared. Dotted: the parabola that "
            "fits its logarithm best, from each space's own turning point on.",
            workdir.save_figure("loss", analysis_figures.spaces_figure(curves)),
            alt="Loss of a model against t in each latent space",
        ),
        Section(
            "Smooth or wavy",
            f"The residual about that parabola, with 95 % over {num_queries} queries; what their number adds is taken off.",
            workdir.save_figure("waviness", analysis_figures.waviness_figure(waves)),
            alt="Waviness of each latent space",
        ),
        Section(
            "The spectra",
            "Eigenvalues of the sample covariance, over the greatest.",
            workdir.save_figure("spectrum", analysis_figures.spectra_figure({name: one.eigenvalues for name, one in found.items()})),
            alt="Spectrum of each latent space",
        ),
    ]


_PAPER = (
    "ImageNet 256²: the loss of a model is a smooth parabola through refinement in the latents of VA-VAE, which are aligned with DINOv2's "
    "features, and wavy in those of SD-VAE."
)


def _spaces(config: ConfigDict) -> list[Space]:
    found = []
    for told in config.spaces:
        name, _, place = told.partition("=")
        path, _, checkpoint = place.partition("@")
        if not path and name not in MADE:
            raise ValueError(f"spaces: {told!r}: expected one of {', '.join(MADE)}, or NAME=LATENTS, or NAME=LATENTS@CHECKPOINT")
        found.append(Space(name, path, checkpoint))
    names = [space.name for space in found]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ValueError(f"spaces = {tuple(config.spaces)}: expected at least two, of different names")
    if not {config.smooth, config.wavy} <= set(names):
        raise ValueError(f"smooth = {config.smooth!r}, wavy = {config.wavy!r}: expected two of the spaces, {', '.join(names)}")
    app.check_at_least(config, num_queries=2, num_t=8)
    return found


def _found(config: ConfigDict, space: Space, workdir: WorkDir) -> Found:
    block = _data_block(config, space, workdir)
    if space.checkpoint or config.model.factory:
        flow = load_trained(space.checkpoint) if space.checkpoint else made(config.model, space=space.name)
        training, _ = own_data(flow, block)
    else:
        flow = load_trained(train_within(_training(config, space, block), workdir, space.name))
        training, _ = own_data(flow, data_config())
    turn, _ = turn_and_advice(flow, training, workdir, config.seed)
    times = (np.arange(config.num_t) + 0.5) / config.num_t * flow.path.t_max
    errors = Errors(workdir, training, training, flow, times, config.num_queries, config.seed)(flow)
    found = Found(training.shape, flow, turn, stages.covariance_spectrum(training.data), errors, None)
    late = _refinement(found)
    if late.sum() < 8:
        return found
    return found._replace(waves=waviness(times[late], errors.oracle[late], seed=config.seed))


def _refinement(found: Found) -> np.ndarray:
    """Whether each time lies in refinement."""
    turn = found.turn.measured
    return np.zeros(len(found.errors.t), bool) if turn is None else found.errors.t >= turn


def _training(config: ConfigDict, space: Space, block: ConfigDict) -> ConfigDict:
    patch = config.pixel_patch if space.name == "pixels" and not space.path else config.patch
    asked = training_config(config.model, **{"model.size": f"{config.size}/{patch}", "evaluate_every": 0})
    asked.data.update(block)
    return asked


def _data_block(config: ConfigDict, space: Space, workdir: WorkDir) -> ConfigDict:
    """Where the samples of a space lie, as the images [H, W, C] that a LightningDiT takes."""
    if space.path:
        block = data_config(path=space.path, flips=config.flips)
        if space.name in config.unnormalized:
            block.update(normalize="none", multiplier=config.multiplier)
        return block if len(open_data(block).shape) == 3 else _kept(config, space, block, workdir)
    return ConfigDict(config.data) if space.name == "pixels" else _kept(config, space, config.data, workdir)


def _encoder(config: ConfigDict, space: Space, workdir: WorkDir) -> Any:
    """From the samples of a data block to those of a space."""
    if space.path:
        return lambda x: x
    if space.name == "pca":
        encoder: Encoder = PatchPca.fit(open_data(config.data), config.autoencoder.factor, config.autoencoder.channels, seed=config.seed)
    else:
        encoder = TrainedEncoder(load_autoencoder(_autoencoder(config, space.name, workdir) / FILE))
    return jax.jit(encoder.encode)


def _autoencoder(config: ConfigDict, name: str, workdir: WorkDir) -> pathlib.Path:
    """The folder of an autoencoder, trained there."""
    asked = presets.get_config("autoencoder")
    asked.data.update(config.data)
    wanted = config.autoencoder
    asked.autoencoder.update(channels=wanted.channels, factor=wanted.factor, width=wanted.width, align=name == "aligned")
    asked.steps = asked.optimizer.decay_steps = wanted.steps
    return train_within(asked, workdir, f"autoencoder-{name}")


def _kept(config: ConfigDict, space: Space, block: ConfigDict, workdir: WorkDir) -> ConfigDict:
    """Samples encoded, each channel standardised, as images, in a file of the workdir's that is made once."""

    def encoded(folder: pathlib.Path) -> None:
        samples, encode = load_data(block), _encoder(config, space, workdir)
        found = np.concatenate([np.asarray(encode(part), np.float32) for part in np.array_split(samples.data, -(-samples.n // 1024))])
        images = found.reshape(samples.n, *as_image(found.shape[1:]))
        mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
        arrays = {} if samples.labels is None else {"labels": samples.labels}
        arrays["data"] = (images - mean) / np.where(std > 0, std, 1)
        save_file(arrays, folder / name)

    made_by = None if space.path else [config.autoencoder.to_dict(), config.seed]
    key = {"space": space, "data": block.to_dict(), "made by": made_by}
    name = f"{space.name}.safetensors"
    file = cached(workdir.live(SPACES), space.name, key, encoded) / name
    return data_config("arrays", path=str(file))


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Samples of any shape as a LightningDiT takes them: vectors as one token, sequences `[L, C]` as a row, more axes as rows.

    `[H, W]` without channels cannot be told from `[L, C]`: add an axis.
    """
    if len(shape) <= 2:
        return (1, 1, *shape)[-3:]  # type: ignore[return-value]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _effective(eigenvalues: np.ndarray) -> float:
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def _verdict(config: ConfigDict, found: dict[str, Found], enough: bool | None) -> Verdict:
    smooth, wavy = found[config.smooth].waves, found[config.wavy].waves
    if smooth is None or wavy is None:
        return judge({"both spaces turn, early enough for a refinement to look at": False}, model_strong_enough=enough)
    words = f"the loss is smoother in refinement for {config.smooth} ({smooth.value}) than for {config.wavy} ({wavy.value})"
    return judge({words: smooth.value.high < wavy.value.low}, model_strong_enough=enough)


def _takeaway(found: dict[str, Found], verdict: Verdict) -> str:
    order = sorted((one.waves.value, name) for name, one in found.items() if one.waves is not None)
    told = ", ".join(f"{name} {_span(value)}" for value, name in order)
    return f"Waviness of the loss in refinement: {told or 'no space turns early enough to tell'}. {verdict.outcome.capitalize()}."


def _span(value: Interval) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _row(name: str, one: Found) -> dict[str, Any]:
    value = (None, None, None) if one.waves is None else one.waves.value
    return {
        "space": name,
        "shape": " x ".join(map(str, one.shape)),
        "turning point": one.turn.measured,
        "effective dimensions": _effective(one.eigenvalues),
        "waviness": value[0],
        "low": value[1],
        "high": value[2],
        "Fréchet ratio": one.flow.frechet_ratio,
    }


def _loss_rows(name: str, one: Found) -> list[dict[str, Any]]:
    return [{"space": name, "t": t, "cfm": cfm, "oracle": exact} for t, cfm, exact in zip(*one.errors.mean(), strict=True)]


if __name__ == "__main__":
    app.main("latent_comparison", run, live=LIVE, free=FREE, on_disk=ON_DISK)
