"""How other projects tell a timestep shift and a guidance interval: their numbers from ours, ours from theirs, and the line to paste.

Here t = 0 is noise, t = 1 is data, σ = 1 - t, `shift(t, s) = s t / (1 + (s - 1) t)`, and guidance acts where `low <= t < high`. Each
convention below has its formula and the file that it was read from, in 2026-11. All of them are of rectified flow, or of EDM at the same
ratio of noise to data.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from flowjax.schedules import shift, uniform_timesteps

Interval = tuple[float, float]
Times = Float[np.ndarray, " T"]

SHIFTED_TABLE = 1000
"""Noise levels that diffusers and ComfyUI keep: σ = 1/1000 to 1 before the shift."""
EDM_GRID = (0.002, 80.0, 7.0)
"""EDM's least and greatest σ, and ρ."""


@dataclasses.dataclass(frozen=True)
class ShiftUnit:
    """How a project tells a shift.

    Attributes:
      of: its number, of our s.
      to_s: our s, of its number.
      line: the line to paste, of its number.
    """

    of: Callable[[float], float]
    to_s: Callable[[float], float]
    line: Callable[[float], str]


@dataclasses.dataclass(frozen=True)
class IntervalUnit:
    """How a project tells a guidance interval. It may depend on the shift s in use and on the number of steps.

    Attributes:
      of: its two numbers, of our interval, s and the number of steps.
      to_t: the interval in our t, of its numbers, s and the number of steps; where steps are counted, a grid as fine as they are.
      line: the line to paste, of its numbers and the number of steps.
    """

    of: Callable[[Interval, float, int], Interval]
    to_t: Callable[[Interval, float, int], Interval]
    line: Callable[[Interval, int], str]


@dataclasses.dataclass(frozen=True)
class Convention:
    """One project's.

    Attributes:
      title: as it calls itself.
      time: which end is noise, in its own time.
      times: the t, in ours, at which its sampler begins each step, and where it arrives; of s and the number that it is given for steps.
      shift: how it tells a shift; None: it has none.
      interval: how it tells a guidance interval; None: it has none.
      note: what its user must know besides; "" for nothing.
    """

    title: str
    time: str
    times: Callable[[float, int], Times]
    shift: ShiftUnit | None
    interval: IntervalUnit | None
    note: str = ""


def direction(s: float) -> str:
    """A shift in words: where it moves the steps."""
    if math.isclose(s, 1, rel_tol=1e-3):
        return "as many of the steps near noise as near data"
    return "more of the steps near noise" if s < 1 else "more of the steps near data"


def _number(value: float) -> str:
    return f"{value:.6g}"


# Grids


def _uniform(s: float, n: int) -> Times:
    """n steps with n + 1 edges, shifted."""
    return shift(uniform_timesteps(n), s)


def _uniform_edges(s: float, n: int) -> Times:
    """n edges, so n - 1 steps: `linspace(0, 1, num_steps)`, shifted."""
    return shift(uniform_timesteps(n - 1), s)


def _diffusers_times(s: float, n: int) -> Times:
    """`set_timesteps(n)` of a scheduler that was made with `shift=a`, a = 1/s.

    The levels before the shift run in n points from 1 to σ_min, which is 1/1000 shifted already: σ_min is shifted twice. Then comes 0.
    """
    a = 1 / s
    least = _shifted(1 / SHIFTED_TABLE, a)
    return 1 - np.r_[_shifted(np.linspace(1.0, least, n), a), 0.0]


def _flux_times(s: float, n: int) -> Times:
    """The Flux pipeline gives the levels before the shift itself, `linspace(1, 1/n, n)`, and they are shifted once."""
    return 1 - np.r_[_shifted(np.linspace(1.0, 1 / n, n), 1 / s), 0.0]


def _comfyui_times(s: float, n: int) -> Times:
    """The scheduler "simple": every (1000/n)-th of the table of shifted levels, from the noisiest on, and 0."""
    kept = SHIFTED_TABLE - (np.arange(n) * (SHIFTED_TABLE / n)).astype(int)
    return 1 - np.r_[_shifted(kept / SHIFTED_TABLE, 1 / s), 0.0]


def edm_levels(n: int) -> Times:
    """`σ_i = (σ_max^(1/ρ) + i / (n - 1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ`, i = 0 .. n - 1, falling. Karras et al. 2022, equation 5."""
    least, most, rho = EDM_GRID
    return (most ** (1 / rho) + np.linspace(0, 1, n) * (least ** (1 / rho) - most ** (1 / rho))) ** rho


def _edm_times(s: float, n: int) -> Times:
    return 1 / (1 + np.r_[edm_levels(n), 0.0])


def _shifted(sigma: float | np.ndarray, a: float) -> float | np.ndarray:
    """`a σ / (1 + (a - 1) σ)`, SD3's shift of noise levels: shift(t, 1/a) at t = 1 - σ."""
    return a * sigma / (1 + (a - 1) * sigma)


# Intervals


def _same(interval: Interval, s: float, n: int) -> Interval:
    return interval


def _reversed(interval: Interval, s: float, n: int) -> Interval:
    """[1 - high, 1 - low]: time runs the other way. Its own inverse."""
    return 1 - interval[1], 1 - interval[0]


def _as_noise(interval: Interval, s: float, n: int) -> Interval:
    """EDM's σ = (1 - t) / t at the ends of the interval, the lower first: [(1 - high) / high, (1 - low) / low]."""
    low, high = interval
    return (1 - high) / high, math.inf if low == 0 else (1 - low) / low


def _of_noise(interval: Interval, s: float, n: int) -> Interval:
    low, high = interval
    return 1 / (1 + high), 1 / (1 + low)


def _as_percent(interval: Interval, s: float, n: int) -> Interval:
    """ComfyUI's p, of which σ = a (1 - p) / (1 + (a - 1)(1 - p)): p = shift(t, 1/s), the share of the steps that are done."""
    low, high = shift(np.array(interval), 1 / s)
    return float(low), float(high)


def _of_percent(interval: Interval, s: float, n: int) -> Interval:
    low, high = shift(np.array(interval), s)
    return float(low), float(high)


def _step_fractions(times: Callable[[float, int], Times]) -> IntervalUnit:
    """diffusers' guiders take shares of the steps, and guide step i where `int(start n) <= i < int(stop n)`.

    The share of step k is told as (k + ½) / n, so that no rounding of the product turns it into k - 1.
    """

    def of(interval: Interval, s: float, n: int) -> Interval:
        begins = times(s, n)[:-1]
        first, behind = (int(np.searchsorted(begins, end, side="left")) for end in interval)
        return (first + 0.5) / n if first else 0.0, (behind + 0.5) / n if behind < n else 1.0

    def to_t(interval: Interval, s: float, n: int) -> Interval:
        edges = times(s, n)
        first, behind = (int(end * n) for end in interval)
        return float(edges[first]), float(edges[behind])

    return IntervalUnit(
        of,
        to_t,
        lambda ends, n: (
            f"guider = ClassifierFreeGuidance(guidance_scale=W, start={_number(ends[0])}, stop={_number(ends[1])})  # of {n} steps"
        ),
    )


# The projects


INVERSE = (lambda s: 1 / s, lambda a: 1 / a)
"""a = 1/s and back: a shift of noise levels is the inverse of one of t."""


def _scheduler(settings: str, owner: str = "") -> str:
    return f"{owner}scheduler = FlowMatchEulerDiscreteScheduler.from_config({owner}scheduler.config, {settings})"


DIFFUSERS = Convention(
    title="diffusers, FlowMatchEulerDiscreteScheduler",
    time="timestep 1000 is noise, 0 is data",
    times=_diffusers_times,
    shift=ShiftUnit(*INVERSE, lambda a: _scheduler(f"shift={_number(a)}, use_dynamic_shifting=False")),
    interval=_step_fractions(_diffusers_times),
    note="Give neither sigmas nor timesteps of your own: the scheduler shifts them again. It shifts its least noise level twice.",
)
"""σ' = a σ / (1 + (a - 1) σ), a = 1/s; schedulers/scheduling_flow_match_euler_discrete.py and guiders/classifier_free_guidance.py, 0.42."""

SD3 = dataclasses.replace(
    DIFFUSERS,
    title="Stable Diffusion 3 (diffusers)",
    shift=ShiftUnit(*INVERSE, lambda a: _scheduler(f"shift={_number(a)}", "pipe.")),
    note="The model was trained with 3 (our 1/3). Give neither sigmas nor timesteps of your own: the scheduler shifts them again.",
)
"""As DIFFUSERS; SD3's own a is 3. Esser et al. 2024, section 5.3.2; pipelines/stable_diffusion_3."""

FLUX = Convention(
    title="Flux (diffusers)",
    time="timestep 1000 is noise, 0 is data",
    times=_flux_times,
    shift=ShiftUnit(
        lambda s: -math.log(s),
        lambda mu: math.exp(-mu),
        lambda mu: _scheduler(f"base_shift={_number(mu)}, max_shift={_number(mu)}", "pipe."),
    ),
    interval=_step_fractions(_flux_times),
    note="Both set to μ, it no longer depends on the number of tokens; Flux's own is 0.5 at 256 and 1.15 at 4,096.",
)
"""σ' = e^μ / (e^μ + 1/σ - 1), μ = -ln s; pipelines/flux/pipeline_flux.py (calculate_shift), and the scheduler's use_dynamic_shifting."""

LIGHTNINGDIT = Convention(
    title="LightningDiT",
    time="t = 0 is noise, 1 is data",
    times=_uniform_edges,
    shift=ShiftUnit(lambda s: s, lambda s: s, lambda s: f"timestep_shift: {_number(s)}"),
    interval=IntervalUnit(_same, _same, lambda ends, n: f"cfg_interval_start: {_number(ends[0])}"),
    note="Both below `sample:` of the configuration. Its guidance has no end: that takes a line in models/lightningdit.py. It guides 3 of "
    "the channels, and num_sampling_steps are edges, so one step fewer.",
)
"""t' = s t / (1 + (s - 1) t); guided for t >= start. transport/integrators.py, models/lightningdit.py (forward_with_cfg)."""

DDT = Convention(
    title="DDT",
    time="t = 0 is noise, 1 is data",
    times=_uniform,
    shift=ShiftUnit(*INVERSE, lambda a: f"timeshift: {_number(a)}"),
    interval=IntervalUnit(
        _same, _same, lambda ends, n: f"guidance_interval_min: {_number(ends[0])}, guidance_interval_max: {_number(ends[1])}"
    ),
    note="Below `diffusion_sampler: init_args:`. `last_step` must stay what num_steps gives, 1 / num_steps, for the steps to be uniform.",
)
"""t' = t / (t + (1 - t) a), a = 1/s; guided for min < t < max. src/diffusion/stateful_flow_matching/sampling.py."""

SIT = Convention(
    title="SiT",
    time="t = 0 is noise, 1 is data",
    times=_uniform_edges,
    shift=ShiftUnit(lambda s: s, lambda s: s, lambda s: f"self.t = {_number(s)} * self.t / (1 + ({_number(s)} - 1) * self.t)"),
    interval=None,
    note="SiT has no shift: the line goes below `self.t = th.linspace(...)` of `ode` in transport/integrators.py. Nor an interval.",
)
"""t = linspace(0, 1, num_steps), so one step fewer; transport/integrators.py, class ode."""

RAE_BASE = 4096
RAE = Convention(
    title="RAE",
    time="t = 1 is noise, 0 is data",
    times=_uniform_edges,
    shift=ShiftUnit(
        lambda s: RAE_BASE / s**2,
        lambda dim: math.sqrt(RAE_BASE / dim),
        lambda dim: (
            f"time_dist_shift_dim: {_number(dim)}"
            if dim >= RAE_BASE
            else f"time_dist_shift_dim: {RAE_BASE}  # none: RAE refuses a shift below 1, and {math.sqrt(dim / RAE_BASE):.3g} is advised"
        ),
    ),
    interval=IntervalUnit(_reversed, _reversed, lambda ends, n: f"t_min: {_number(ends[0])}, t_max: {_number(ends[1])}"),
    note="The first below `misc:`, with time_dist_shift_base: 4096; its shift α is the root of their ratio, and acts in training and in "
    "sampling. The others below `guidance:`, with underscores: src/sample.py does not read t-min.",
)
"""α = √(dim / base) = 1/s, t' = α t / (1 + (α - 1) t); t_min <= t <= t_max.

src/stage2/transport/, src/stage2/models/DDT.py, src/sample.py.
"""

REPA = Convention(
    title="REPA",
    time="t = 1 is noise, 0 is data",
    times=lambda s, n: _uniform(1.0, n),
    shift=None,
    interval=IntervalUnit(_reversed, _reversed, lambda ends, n: f"--guidance-low={_number(ends[0])} --guidance-high={_number(ends[1])}"),
    note="REPA has no shift. Its steps are uniform with --mode=ode.",
)
"""t = linspace(1, 0, n + 1); low <= t <= high. samplers.py, generate.py."""

JIT = Convention(
    title="JiT",
    time="t = 0 is noise, 1 is data",
    times=lambda s, n: _uniform(1.0, n),
    shift=ShiftUnit(math.log, math.exp, lambda mean: f"--P_mean {_number(mean)}"),
    interval=IntervalUnit(_same, _same, lambda ends, n: f"--interval_min {_number(ends[0])} --interval_max {_number(ends[1])}"),
    note="JiT samples with uniform steps. --P_mean moves its times of training (logit t ~ N(P_mean, P_std²)) as the shift does: by ln s. "
    "Its --noise_scale is --config.data.noise_scale here, and changes the advice.",
)
"""P_mean = ln s; min < t < max, all t below max where min is 0. denoiser.py of two forks (the original could not be had)."""

EDM = Convention(
    title="EDM",
    time="σ = 80 is noise, 0 is data",
    times=_edm_times,
    shift=None,
    interval=IntervalUnit(
        _as_noise,
        _of_noise,
        lambda ends, n: f'--guidance_interval="{list(edm_indices(ends, n))}"  # of {n} steps; {_number(ends[0])} < σ <= {_number(ends[1])}',
    ),
    note="EDM's steps follow ρ and have no shift. The line is of the guidance interval's own code (kynkaat/guidance-interval), whose "
    "indices are both included. σ is for data of the scale that you gave; where σ_data rescales them, so it does σ.",
)
"""σ = (1 - t) / t, x_EDM = x / t. NVlabs/edm generate.py; kynkaat/guidance-interval sampling/edm_sampler.py."""

COMFYUI = Convention(
    title="ComfyUI",
    time="σ = 1 is noise, 0 is data",
    times=_comfyui_times,
    shift=ShiftUnit(*INVERSE, lambda a: f"ModelSamplingSD3: shift = {_number(a)}"),
    interval=IntervalUnit(
        _as_percent, _of_percent, lambda ends, n: f"start_percent = {_number(ends[0])}, end_percent = {_number(ends[1])}"
    ),
    note="For Flux: ModelSamplingFlux with base_shift and max_shift both the logarithm of that shift. The percents are shares of steps, as "
    "ScheduledCFGGuidance (KJNodes) takes them, with the shift in use and the scheduler simple.",
)
"""σ' = a σ / (1 + (a - 1) σ), a = 1/s; p = 1 - σ / (a - (a - 1) σ). comfy/model_sampling.py, comfy/samplers.py (simple_scheduler)."""

CONVENTIONS: dict[str, Convention] = {
    "diffusers": DIFFUSERS,
    "sd3": SD3,
    "flux": FLUX,
    "lightningdit": LIGHTNINGDIT,
    "ddt": DDT,
    "sit": SIT,
    "rae": RAE,
    "repa": REPA,
    "jit": JIT,
    "edm": EDM,
    "comfyui": COMFYUI,
}


def edm_indices(sigmas: Interval, n: int) -> tuple[int, ...]:
    """First and last step of EDM's grid whose σ lies in (low, high]; nothing if there is none.

    Args:
      sigmas: (low, high).
      n: the number of steps.
    """
    inside = np.flatnonzero((edm_levels(n) > sigmas[0]) & (edm_levels(n) <= sigmas[1]))
    return (int(inside[0]), int(inside[-1])) if len(inside) else ()


def told(name: str, s: float | None, interval: Interval | None, num_steps: int) -> dict[str, object]:
    """Advice in a project's own units.

    Args:
      name: of `CONVENTIONS`.
      s: the shift; None: nothing is advised, and none is in use.
      interval: (t_low, t_high) in our t; None: nothing is advised.
      num_steps: what the project is given for the number of steps.

    Returns:
      `framework`, `time`, `shift` and `guidance_interval` (its numbers), `shift_line` and `interval_line` (to paste; "" where there is
      nothing to say), `direction` (in words) and `note`.

    Raises:
      ValueError: an unknown name.

    Examples:
      >>> told("lightningdit", 0.5, (0.3, 0.7), num_steps=50)["shift_line"]
      'timestep_shift: 0.5'
    """
    if name not in CONVENTIONS:
        raise ValueError(f"for = {name!r}: expected {', '.join(CONVENTIONS)} or all")
    convention = CONVENTIONS[name]
    shift_unit, interval_unit = convention.shift, convention.interval
    amount = None if s is None or shift_unit is None else shift_unit.of(s)
    in_use = 1.0 if amount is None or s is None else s
    ends = None if interval is None or interval_unit is None else interval_unit.of(interval, in_use, num_steps)
    return {
        "framework": convention.title,
        "time": convention.time,
        "shift": amount,
        "direction": "" if amount is None or s is None else direction(s),
        "shift_line": "" if amount is None or shift_unit is None else shift_unit.line(amount),
        "guidance_interval": ends,
        "interval_line": "" if ends is None or interval_unit is None else interval_unit.line(ends, num_steps),
        "note": convention.note,
    }
