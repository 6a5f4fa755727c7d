"""The findings of arXiv 2512.02826 and what was asked beyond them, and the experiments that test each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run of a binary, and what of it a reader is shown.

    Attributes:
      name: of the run's folder.
      binary: of `experiments`.
      figures: those to show, in their order, with what they show: names of figures, or of what a pattern finds the last.
      presets: preset of `reproduce` to that of the binary; what is not named is called alike. "" leaves the experiment out.
      settings: what else is typed.
      shorter: what else is typed for digits: less than the binary does by default, so that all experiments take 25 minutes.
      model: the key that takes the trained model; "": none does.
      takes: preset of `reproduce` to the key that takes a model of an experiment before this one, if that has trained it, and a pattern for
        the model's folder.
      table: a `.csv` of the run to show; "": none.
      takes_data: whether it takes data of the user's.
    """

    name: str
    binary: str
    figures: dict[str, str]
    presets: dict[str, str] = dataclasses.field(default_factory=dict)
    settings: tuple[str, ...] = ()
    shorter: tuple[str, ...] = ()
    model: str = ""
    takes: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    table: str = ""
    takes_data: bool = True


@dataclasses.dataclass(frozen=True)
class Finding:
    """A heading, what the paper says, and the experiments that answer."""

    heading: str
    paper: str
    experiments: tuple[Experiment, ...]


MODEL = "model"
"""The experiment that trains."""

_ARRAYS = {"imagenet_vavae": "arrays"}
_FASHION_ONLY = {"digits": "", "imagenet_vavae": ""}

FINDINGS = (
    Finding(
        "1. The target has two stages",
        "ImageNet 256², by class: the CFM target differs from the oracle velocity for t in [0, 0.1] only, and the likeliest sample takes "
        "all the weight just after t = 0.1.",
        (
            Experiment(
                "sweep_by_class",
                "oracle_sweep",
                {
                    "top1": "Weight of the likeliest sample against t",
                    "gap": "Gap between CFM target and oracle",
                    "strip": "One-step predictions",
                },
                presets={"digits": "digits_by_class"} | _ARRAYS,
                settings=("--config.by_class=True",),
            ),
            Experiment(
                "sweep",
                "oracle_sweep",
                {
                    "top1": "Weight of the likeliest sample against t",
                    "figures/groups*.svg": "Turning point between groups of near-duplicates, where the data have any",
                },
                presets={"imagenet_vavae": ""},
            ),
            Experiment(
                "sweep_of_6000",
                "oracle_sweep",
                {"top1": "Weight of the likeliest sample against t, 6,000 samples"},
                presets=_FASHION_ONLY,
                settings=("--config.data.max_samples=6000",),
            ),
            Experiment(
                "sweep_of_1000",
                "oracle_sweep",
                {"top1": "Weight of the likeliest sample against t, 1,000 samples"},
                presets=_FASHION_ONLY,
                settings=("--config.data.max_samples=1000",),
            ),
        ),
    ),
    Finding(
        "2. More dimensions turn earlier, more samples later",
        "Unit Gaussians: the turning point falls with D and rises with N.",
        (
            Experiment(
                "gaussians",
                "oracle_sweep",
                {"grid": "Turning point against N, a line for each D"},
                presets={"digits": "gaussian_grid", "fashion_mnist": "gaussian_grid", "imagenet_vavae": "gaussian_grid"},
                settings=("--config.grid.d=(16,64,256)", "--config.grid.n=(64,512,4096)", "--config.grid.draws=4"),
                takes_data=False,
            ),
        ),
    ),
    Finding(
        "The model",
        "LightningDiT trained on the CFM target. Here a small one; what follows can be concluded from it only if its samples lie at most "
        "three times as far from held-out data as training data do (Fréchet distance in the features of a classifier).",
        (
            Experiment(
                MODEL,
                "train",
                {"samples/*.png": "Samples of the model", "loss_by_t": "Its error against both targets, by t"},
                presets={"imagenet_vavae": "imagenet_vavae_b1"},
                shorter=("--config.evaluate_every=0",),
            ),
        ),
    ),
    Finding(
        "3. Following the oracle beyond the turn copies training samples",
        "Oracle until t_switch, then the model: near-copies of training images for t_switch in (0.2, 1], new images below. The behaviour "
        "turns a little after the target, which turns at 0.1. Resumed from noised validation images at t >= 0.2 it gives them back.",
        (
            Experiment(
                "hybrid_sampling",
                "hybrid_sampling",
                {"copies": "Share of copies against t_switch", "samples": "Samples for each t_switch beside their nearest training sample"},
                shorter=("--config.num_samples=250", "--config.num_switches=14"),
                model="model.path",
            ),
            Experiment(
                "resumed_sampling",
                "hybrid_sampling",
                {"faithfulness": "Share of samples nearest to their held-out original", "samples": "Held-out originals, and samples below"},
                presets={"imagenet_vavae": ""},
                settings=("--config.start=heldout",),
                shorter=("--config.num_samples=250", "--config.num_switches=14"),
                model="model.path",
            ),
        ),
    ),
    Finding(
        "4. The layout is decided at the turn, the details after",
        "One-step predictions along a sampling run: the class mean at t = 0, the layout settled at t = 0.2, only details later.",
        (
            Experiment(
                "one_step",
                "one_step",
                {
                    "predictions_model": "One-step predictions along the model",
                    "settling": "How much of layout and details is settled, against t",
                },
                model="model.path",
            ),
        ),
    ),
    Finding(
        "5. Capacity and training time buy refinement",
        "The errors against both targets differ in navigation only; capacity and training time lower those in refinement, hardly those in "
        "navigation.",
        (
            Experiment(
                "loss_by_timestep",
                "loss_by_timestep",
                {"loss_by_timestep": "Errors of models against t", "gains": "What capacity and time buy in each stage"},
                presets={"imagenet_vavae": ""},
                shorter=("--config.num_queries=256",),
                takes={"digits": ("model.path", MODEL), "fashion_mnist": ("model.path", MODEL)},
                table="gains.csv",
            ),
        ),
    ),
    Finding(
        "6. A small navigator with a large refiner",
        "Table 1: a small navigator costs little (2.94 to 3.71 at t_split = 0.1), a small refiner much (to 11.26). Asymmetric models are "
        "named, and left open.",
        (
            Experiment(
                "capacity_swap",
                "capacity_swap",
                {
                    "swap": "Fréchet distance of each pair of navigator and refiner",
                    "cost": "Fréchet distance against parameters times steps",
                },
                presets={"imagenet_vavae": ""},
                shorter=("--config.specialists=False", "--config.splits=(0.1,)", "--config.num_steps=(25,)", "--config.num_samples=250"),
                model="large.path",
                takes={
                    "digits": ("small.path", "loss_by_timestep/models/Na-2-1200-*"),
                    "fashion_mnist": ("small.path", "loss_by_timestep/models/Na-4-14000-*"),
                },
                table="swap.csv",
            ),
        ),
    ),
    Finding(
        "7. Timestep shift",
        "Table 2, 50 steps: s = 0.7 and 0.5 are better than no shift (12.46 and 12.23 against 12.99), s = 0.1 is worse (19.91).",
        (
            Experiment(
                "timestep_shift",
                "timestep_shift",
                {"shift": "Fréchet distance against the timestep shift, the advised one marked"},
                shorter=("--config.num_samples=250", "--config.shifts=(0.1, 0.5, 0.7, 1.0, 2.0, 5.0)"),
                model="model.path",
                table="shift.csv",
            ),
        ),
    ),
    Finding(
        "8. Guidance interval",
        "Table 3, scale 2.5: [0.1, 0.6] is best (2.80, against 12.99 without guidance and 10.79 over all t): leave out navigation.",
        (
            Experiment(
                "guidance_interval",
                "guidance_interval",
                {"map": "Fréchet distance over where guidance begins and ends", "intervals": "Fréchet distance of each interval"},
                shorter=("--config.num_samples=250", "--config.edges=(0.0, 0.25, 0.5, 0.75, 1.0)"),
                model="model.path",
                table="guidance.csv",
            ),
        ),
    ),
    Finding(
        "9. Smooth and wavy latent spaces",
        "The error of a model against t is a smooth parabola in refinement for latents that are aligned with a feature extractor (VA-VAE), "
        "and wavy for others (SD-VAE).",
        (
            Experiment(
                "latent_comparison",
                "latent_comparison",
                {"loss": "Error of a model against t in each space", "waviness": "Waviness in each space, with its interval"},
                shorter=("--config.spaces=('plain', 'aligned')", "--config.autoencoder.steps=300"),
                presets={"imagenet_vavae": ""},
                table="spaces.csv",
            ),
        ),
    ),
    Finding(
        "10. What the network computes instead",
        "not asked there. Here: how much of a model's one-step predictions the oracle explains, and how much simpler fields do; where in t "
        "the oracle falls behind.",
        (
            Experiment(
                "analytic_fields",
                "analytic_fields",
                {"explained": "Share of the variance of the model's predictions that each field explains"},
                presets={"imagenet_vavae": ""},
                model="model.path",
            ),
        ),
    ),
    Finding(
        "11. Where a model memorises, and whether an audit sees it",
        "not asked there. Here: the model's error against the oracle of its training samples beside that against the oracle of unseen "
        "ones; and copies of training samples, planted among unseen ones, found by the audit.",
        (
            Experiment(
                "memorization_by_timestep",
                "memorization_by_timestep",
                {"memorization": "Errors against both oracles, and the advantage on training samples, by t"},
                presets={"imagenet_vavae": ""},
                model="model.path",
            ),
            Experiment(
                "audit",
                "audit",
                {"ratios": "Ratio of the nearest two training samples, of samples and of unseen ones"},
                presets={"imagenet_vavae": ""},
                table="shares.csv",
            ),
        ),
    ),
)
