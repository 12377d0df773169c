"""The configuration: every key, its unit, its default, and the messages for wrong ones."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from besselflow.errors import Problem, ProblemsError

Method = Literal[
    "interpolation",
    "spectral",
    "variational",
    "richardson_lucy",
    "inr",
    "microdiffusion",
    "diffusion",
]
METHODS: tuple[str, ...] = get_args(Method)
BASELINES = ("interpolation", "spectral", "variational", "richardson_lucy")
DEFAULT_METHODS = ("interpolation", "spectral", "variational", "inr", "diffusion")
_NEEDS = {
    "variational": ("spectral",),
    "inr": ("spectral",),
    "microdiffusion": ("inr",),
    "diffusion": ("inr",),
}

_AUTO_OR_NUMBER = {
    ("spectral", "anisotropy"),
    ("variational", "weight"),
    ("inr", "bandwidth"),
    ("inr", "steps"),
    ("refine", "trust"),
}

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """A section that forbids unknown keys: a typo must not silently fall back to a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _multiples_of_8(channels: list[int]) -> list[int]:
    if any(number % 8 for number in channels):
        raise ValueError("channels must be multiples of 8, such as [24, 48, 72]")
    return channels


class Tiling(Section):
    """How a sample is cut into work units and cluster jobs."""

    tile: Positive = Field(
        256, description="Lateral edge length of a work unit without its halo, in pixels."
    )
    halo: int = Field(
        24,
        ge=1,
        description="Overlap of a work unit beyond its own area on each side, in pixels; "
        "neighbours are blended over twice this length.",
    )
    shards: Positive = Field(
        1,
        description="Number of jobs per sample and stage that the work units (channel, time "
        "point, tile) are divided among. Raise it for time series and large volumes on a cluster.",
    )
    chain: Positive = Field(
        8,
        description="Time points in a row that stay in one job: each fit of the INR starts from "
        "that of the time point before, and the first of every chain starts afresh.",
    )


class Spectral(Section):
    """The spectral Gaussian process, which the other methods build on."""

    anisotropy: Literal["auto"] | PositiveFloat = Field(
        1.0,
        description="Correlation length of the sample along z divided by that along y and x: above "
        "1 for structures that run along z. `auto` fits it to the projections, between 1/4 and 4; "
        "they say little about it unless beams overlap, and then it stays near 1.",
    )


class Variational(Section):
    """Nonnegative reconstruction with photon noise and a Hessian penalty."""

    weight: Literal["auto"] | PositiveFloat = Field(
        "auto",
        description="`auto` repeats the fit with what it has left unexplained added back to the "
        "data (Bregman rounds), as often as it predicts unseen parts of the data better; this "
        "restores the contrast in depth that a penalty takes. A number is the weight of the "
        "penalty in a single fit, with intensities in units of the noise: around 0.04, and smaller "
        "values give more contrast and more noise.",
    )
    tolerance: PositiveFloat = Field(
        0.05,
        description="A fit ends when its objective is proven to exceed the minimum by at most this "
        "share of itself (duality gap).",
    )
    iterations: Positive = Field(150, description="Most iterations of a fit.")


class RichardsonLucy(Section):
    """Richardson-Lucy deconvolution along z."""

    iterations: Positive = Field(
        20, description="Iterations; more are sharper along z, and noisier."
    )


class Inr(Section):
    """The implicit neural representation that is fitted to each sample."""

    encoding: Literal["gaussian", "sincos", "siren", "grid"] = Field(
        "gaussian",
        description="How the network sees a coordinate: `gaussian` (random Fourier features of one "
        "bandwidth along all axes), `sincos` (octaves along each axis, as published), `siren` (a "
        "network of sines), or `grid` (trainable values at the nodes of several grids).",
    )
    width: Positive = Field(128, description="Units per hidden layer.")
    depth: Positive = Field(3, description="Number of hidden layers.")
    skip: bool = Field(
        False, description="Feed the encoding in again after half of the hidden layers."
    )
    features: Positive = Field(
        128,
        description="Number of random Fourier features (each gives a sine and a cosine) of the "
        "encoding `gaussian`.",
    )
    octaves: Positive = Field(10, description="Number of octaves of the encoding `sincos`.")
    bandwidth: Literal["auto"] | PositiveFloat = Field(
        "auto",
        description="Standard deviation of the feature frequencies in cycles per micrometre. "
        "`auto` derives it from the correlation length and smoothness that the spectral Gaussian "
        "process found in the same sample.",
    )
    output: Literal["positive", "linear"] = Field(
        "positive",
        description="`positive` allows no negative light; `linear` leaves the output as it is.",
    )
    loss: Literal["photon", "squares"] = Field(
        "photon",
        description="`photon` weighs each pixel by its own noise, which grows with the light; "
        "`squares` weighs all pixels alike.",
    )
    neighbour_average: bool = Field(
        False,
        description="Smooth the volume along z over six neighbouring slices, as published.",
    )
    leftover: bool = Field(
        True,
        description="Add what the spectral Gaussian process finds in the projections that the "
        "network left over.",
    )
    optimiser: Literal["muon", "adam"] = Field(
        "muon",
        description="`muon` takes orthogonalised steps for the matrices of the hidden layers and "
        "needs about half as many of them; `adam` is the published choice.",
    )
    learning_rate: PositiveFloat = Field(
        5e-3,
        description="Peak learning rate of Adam; it decays to zero along a cosine. That of Muon is "
        "ten times as high.",
    )
    steps: Literal["auto"] | Positive = Field(
        "auto",
        description="Optimiser steps at most; `auto` takes more for larger fields of view.",
    )
    columns: Positive = Field(
        128, description="Pixel columns (all slices of one pixel) per optimiser step."
    )
    held_out: Annotated[float, Field(ge=0, le=0.2)] = Field(
        0.02,
        description="Share of the pixel columns in which half of the projections are left out of "
        "the fit, to see whether it still gets better and to end it when it doesn't. 0 always "
        "takes all steps.",
    )
    precision: Precision = Field(
        "auto",
        description="Precision of the hidden layers during the fit. `auto` takes bfloat16 where "
        "the processor or GPU computes with it, which is about twice as fast.",
    )
    checkpoint_seconds: PositiveFloat = Field(
        30.0, description="Seconds between checkpoints, from which a rerun resumes."
    )


class Microdiffusion(Section):
    """The published scheme (Hui et al., CVPR 2024), trained on each sample's own projections."""

    inr_weight: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9,
        description="Weight of the INR in what the network is trained to denoise, and in the state "
        "before every sampling step. 0 is diffusion without INR.",
    )
    neighbour_average: bool = Field(
        True,
        description="Smooth the INR along z over neighbouring slices, as published, unless "
        "`inr.neighbour_average` has done so.",
    )
    use_image_embedding: bool = Field(
        True, description="Condition the network on the nearest acquired projection."
    )
    use_position_embedding: bool = Field(
        True, description="Condition the network on the depth of the slice."
    )
    octaves: Positive = Field(10, description="Octaves of the encoding of the depth.")
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.8, description="Weight w of classifier-free guidance; 0 takes the conditions as they are."
    )
    condition_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1,
        description="Share of training images whose conditions are dropped, which guidance needs "
        "to know what the network does without them.",
    )
    timesteps: Annotated[int, Field(ge=10)] = Field(
        1000, description="Noise levels of the diffusion, T."
    )
    beta_start: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4, description="Variance that the first noise level adds; it grows linearly."
    )
    beta_end: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02, validate_default=True, description="Variance that the last noise level adds."
    )
    channels: list[Positive] = Field(
        [32, 64, 64, 64],
        min_length=2,
        max_length=5,
        description="Channels of U-Net and image embedding at each resolution; multiples of 8. "
        "Published: `[64, 128, 128, 128]`, four times the work.",
    )
    steps: Positive = Field(2000, description="Optimiser steps.")
    batch: Positive = Field(4, description="Projections per optimiser step.")
    learning_rate: PositiveFloat = Field(
        2e-4, description="Peak learning rate of AdamW; it decays to zero along a cosine."
    )
    sampling_steps: Annotated[int, Field(ge=10)] = Field(
        50,
        validate_default=True,
        description="Noise levels that sampling visits, evenly spaced; `timesteps` visits all, as "
        "published. Guidance needs two network evaluations at each.",
    )
    eta: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="Share of fresh noise in a sampling step: 1 is DDPM, 0 is DDIM without noise.",
    )
    checkpoint_seconds: PositiveFloat = Field(
        60.0, description="Seconds between checkpoints, from which a rerun resumes."
    )

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        return _multiples_of_8(channels)

    @field_validator("beta_end")
    @classmethod
    def _check_betas(cls, beta_end: float, info: ValidationInfo) -> float:
        if beta_end < info.data.get("beta_start", 0.0):
            raise ValueError("beta_end lies below beta_start; make it larger, such as 0.02")
        return beta_end

    @field_validator("sampling_steps")
    @classmethod
    def _check_sampling_steps(cls, sampling_steps: int, info: ValidationInfo) -> int:
        if sampling_steps > info.data.get("timesteps", sampling_steps):
            raise ValueError("there are fewer timesteps than sampling_steps; take at most as many")
        return sampling_steps


class Prior(Section):
    """The conditional diffusion model and its training."""

    weights: Annotated[str, Field(min_length=1)] = Field(
        "auto",
        description="Which prior to use: `shipped`, the one that comes with BesselFlow, trained on "
        "phantoms under many beams; `train`, one trained for the beam and step of each sample on "
        "the `role: train` samples and `prior.phantoms`; the path of a `.safetensors` file that an "
        "earlier run left in `priors/`; or `auto`: `train` where the sheet has `role: train` "
        "samples, else `shipped`.",
    )
    channels: list[Positive] = Field(
        [48, 96, 128],
        min_length=2,
        max_length=5,
        description="Channels of the U-Net at each resolution; multiples of 8.",
    )
    depth: Positive = Field(2, description="Residual blocks of the U-Net at each resolution.")
    steps: Positive = Field(8000, description="Optimiser steps.")
    batch: Positive = Field(4, description="Blocks of 8 slices per optimiser step.")
    patch: Positive = Field(
        64, description="Edge length of the training patches in pixels; a multiple of 16."
    )
    learning_rate: PositiveFloat = Field(
        1.5e-3,
        description="Peak learning rate of AdamW, and a tenth of that of Muon, which trains the "
        "hidden layers; both decay to zero along a cosine.",
    )
    precision: Precision = Field(
        "auto",
        description="Precision of the U-Net: `float32`, `bfloat16`, or `auto`, bfloat16 where the "
        "processor or the GPU has instructions for it.",
    )
    compile: bool = Field(
        False,
        description="Compile the U-Net (`torch.compile`) for training and sampling. It needs a C++ "
        "compiler and about a minute at the start of every job, and does not change results but "
        "for rounding.",
    )
    phantoms: int = Field(
        0,
        ge=0,
        description="Number of simulated phantoms (equal parts of vessels, neurons and cells) "
        "to train on besides the `role: train` samples. Without any `train` sample, at least "
        "12 are drawn.",
    )
    checkpoint_seconds: PositiveFloat = Field(
        60.0, description="Seconds between checkpoints, from which a rerun resumes."
    )

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        return _multiples_of_8(channels)

    @field_validator("patch")
    @classmethod
    def _check_patch(cls, patch: int) -> int:
        if patch % 16:
            raise ValueError("patch must be a multiple of 16, such as 64")
        return patch


class Refine(Section):
    """Sampling from the diffusion model, and how far it is trusted."""

    evaluations: Annotated[int, Field(ge=2, le=25)] = Field(
        8,
        description="Network evaluations per slice and posterior sample. The first is shared by "
        "all samples, and gives the posterior mean.",
    )
    samples: Positive = Field(
        4,
        description="Posterior samples per work unit. With two or more, their spread is stored as "
        "the uncertainty.",
    )
    trust: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="How far the prior is followed: 1 takes its volume, 0 that of the INR, values "
        "between mix both. `auto` decides for every sample and channel: it takes the mixture that "
        "best predicts what was kept from both (`validation.hold_out`), and the INR where nothing "
        "can be.",
    )

    @property
    def gives_uncertainty(self) -> bool:
        """Whether there is more than one answer that a standard deviation can be taken of."""
        return self.samples > 1


class Evaluate(Section):
    """Scores against ground truth."""

    ssim_window: Annotated[int, Field(ge=3)] = Field(
        7, description="Edge length of the SSIM window in pixels; odd."
    )

    @field_validator("ssim_window")
    @classmethod
    def _check_odd(cls, ssim_window: int) -> int:
        if ssim_window % 2 == 0:
            raise ValueError("ssim_window must be odd, such as 7")
        return ssim_window


class Validation(Section):
    """Trust without ground truth: projections that are withheld, predicted, and compared."""

    hold_out: int = Field(
        6,
        ge=0,
        description="One of so many projections is withheld, every method reconstructs from the "
        "others, and is ranked by how well it predicts what was withheld. From 5 on, two others "
        "are also replaced by their mean, and how well their difference is predicted decides the "
        "ranking, and how far the prior is followed. 0 turns this off; "
        "acquisitions of fewer than 8 projections are neither ranked nor checked.",
    )
    region: Positive = Field(
        128,
        description="Edge length of the lateral region, in pixels, that the ranking is computed "
        "on: the brightest one of the middle time point. It bounds the cost, which for small "
        "samples is about that of the reconstruction itself, and for large ones a share of it.",
    )
    methods: list[Method] = Field(
        [],
        description="Methods to rank; all of `methods` if none is listed. What a listed method "
        "builds on is computed with it.",
    )

    @field_validator("hold_out")
    @classmethod
    def _check_hold_out(cls, hold_out: int) -> int:
        if hold_out == 1:
            raise ValueError("1 would withhold every projection; use 0 for none, or 2 or more")
        return hold_out


class Report(Section):
    """Pictures in the HTML reports."""

    picture_pixels: Annotated[int, Field(ge=64, le=2048)] = Field(
        320, description="Longest edge of one picture panel in the report, in pixels."
    )


class Config(Section):
    """The whole configuration of a run."""

    samples: str = Field(
        "config/samples.tsv",
        min_length=1,
        description="Path of the sample sheet. Relative paths inside the sheet start from the "
        "sheet's folder, or else from the working directory.",
    )
    results: str = Field(
        "results", min_length=1, description="Folder that all results are written to."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of everything random; equal seeds give equal results."
    )
    methods: list[Method] = Field(
        list(DEFAULT_METHODS),
        min_length=1,
        description="Methods to run and compare, any of "
        + ", ".join(f"`{name}`" for name in METHODS)
        + ". `variational` and `inr` need `spectral`; `microdiffusion` and `diffusion` need `inr`.",
    )
    final: Method = Field(
        "diffusion",
        validate_default=True,
        description="The method whose volume becomes `volume.ome.zarr`; one of `methods`.",
    )
    ablation: str = Field(
        "config/ablation.yaml",
        min_length=1,
        description="Path of the grid of configurations that the target `ablation` compares.",
    )
    tiling: Tiling = Tiling()
    spectral: Spectral = Spectral()
    variational: Variational = Variational()
    richardson_lucy: RichardsonLucy = RichardsonLucy()
    inr: Inr = Inr()
    microdiffusion: Microdiffusion = Microdiffusion()
    prior: Prior = Prior()
    refine: Refine = Refine()
    validation: Validation = Validation()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @property
    def uncertain_methods(self) -> list[str]:
        """Methods whose volume comes with a standard deviation, in their order."""
        states = {"spectral": True, "diffusion": self.refine.gives_uncertainty}
        return [method for method in self.methods if states.get(method, False)]

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: list[str]) -> list[str]:
        wrong = []
        for method in dict.fromkeys(methods):
            if methods.count(method) > 1:
                wrong.append(f"`{method}` is listed {methods.count(method)} times; list it once")
            wrong += [
                f"`{method}` builds on `{needed}`; add `{needed}` to the list"
                for needed in _NEEDS.get(method, ())
                if needed not in methods
            ]
        if wrong:
            raise ValueError(", and ".join(wrong))
        return methods

    @field_validator("final")
    @classmethod
    def _check_final(cls, final: str, info: ValidationInfo) -> str:
        # Where the methods are wrong themselves, their own message comes first.
        methods = info.data.get("methods", METHODS)
        if final not in methods:
            raise ValueError(
                f"`{final}` is not among the methods; add it there or choose one of "
                + ", ".join(methods)
            )
        return final


def load_config(values: dict[str, Any], source: str = "config") -> Config:
    """Validate configuration values and fill in the defaults.

    Parameters
    ----------
    values : dict
        Nested values as read from YAML and the command line.
    source : str
        Name of the file to blame in messages.

    Returns
    -------
    Config

    Raises
    ------
    ProblemsError
        All wrong keys and values at once, unknown keys with a suggestion.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        found: dict[tuple, Problem] = {}
        for item in error.errors():
            location = _without_union_tags(item["loc"])
            found.setdefault(location, _explain(item, location, source))
        raise ProblemsError(list(found.values())) from None


def _without_union_tags(location: tuple) -> tuple:
    """Drop what pydantic adds where a key allows values of several types."""
    model, kept = Config, []
    for part in location:
        if not isinstance(part, int) and model is None:
            break
        kept.append(part)
        if not isinstance(part, int):
            model = _section(model, part)
    return tuple(kept)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    entry = model.model_fields.get(key)
    is_section = entry is not None and isinstance(entry.annotation, type)
    return entry.annotation if is_section and issubclass(entry.annotation, BaseModel) else None


def _explain(error: dict[str, Any], location: tuple, source: str) -> Problem:
    key = ".".join(str(part) for part in location) or None
    value = None if isinstance(error["input"], dict) else str(error["input"])
    if error["type"] == "extra_forbidden":
        known = _keys_beside(location)
        close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        remedy = f'did you mean "{close[0]}"?' if close else f"known keys: {', '.join(known)}"
        return Problem(source, "unknown key", remedy, column=key, value=value, kind="key")
    # Our own messages hold the remedy already.
    if error["type"] == "value_error":
        message, _, remedy = error["msg"].removeprefix("Value error, ").partition("; ")
        remedy = remedy or "see config/README.md for this key"
        return Problem(source, message, remedy, column=key, value=value, kind="key")
    remedy = "see config/README.md for this key"
    if error["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        close = difflib.get_close_matches(str(error["input"]), choices, n=1, cutoff=0.5)
        if close and location not in _AUTO_OR_NUMBER:
            remedy = f'did you mean "{close[0]}"?'
    message = error["msg"]
    if error["type"] == "model_type":
        message = "it must be a section of keys and values"
    elif location in _AUTO_OR_NUMBER:
        message = "it must be `auto` or a positive number"
        if location == ("refine", "trust"):
            message = "it must be `auto` or a number from 0 to 1"
    return Problem(source, message, remedy, column=key, value=value, kind="key")


def _keys_beside(location: tuple) -> list[str]:
    """Return the keys that are known in the section of an unknown key."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
