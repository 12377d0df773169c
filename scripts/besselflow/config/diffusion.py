"""Sections of both diffusion models."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from besselflow.config.section import Positive, PositiveFloat, Precision, Section, multiples_of_8

# What of a state may be lost: far less than is rounded off.
_NEGLIGIBLE = 1e-6
_PIXELS_PER_STEP, _MOST_PER_STEP = 2**16, 4


class Microdiffusion(Section):
    """The published scheme (Hui et al., CVPR 2024), trained on each sample's own projections."""

    inr_weight: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9,
        description="Weight of the INR in what the network is trained to denoise, and in the state "
        "before every sampling step. 0 is diffusion without INR.",
    )
    inr_training: Literal["pretrained", "joint"] = Field(
        "pretrained",
        description="`pretrained` takes the INR as it was fitted before, as published. `joint` "
        "fits one anew for every work unit (at most 32 per sample) while the network is trained: "
        "each of the `steps` below is also a step of the INR, which learns from the projections "
        "and from the loss of the network, and the INR that comes out guides the sampling.",
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
    steps: Positive = Field(250, description="Optimiser steps.")
    batch: Literal["auto"] | Positive = Field(
        "auto",
        description="Projections, or tiles of them, per optimiser step; `auto`: 4, or as many as "
        "have 65536 pixels together, 4 of 128 x 128, where these are fewer, and at least one.",
    )
    learning_rate: PositiveFloat = Field(
        2e-4, description="Peak learning rate of AdamW; it decays to zero along a cosine."
    )
    sampling_steps: Literal["all"] | Annotated[int, Field(ge=10)] = Field(
        "all",
        description="Noise levels that sampling visits: `all`, as published, or a number of them, "
        "evenly spaced. Guidance needs two network evaluations at each. Levels of which less than "
        "a millionth is left at the end, since the INR took their place, are passed over: with "
        "the published weight, all but the last 6; without the INR, none.",
    )
    eta: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="Share of fresh noise in a sampling step: 1 is DDPM, 0 is DDIM without noise.",
    )
    precision: Precision = Field(
        "auto",
        description="Precision of the U-Net in training and sampling: `float32`, `bfloat16`, or "
        "`auto`, bfloat16 where the processor or the GPU has instructions for it.",
    )
    checkpoint_seconds: PositiveFloat = Field(
        60.0, description="Seconds between checkpoints, from which a rerun resumes."
    )

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        return multiples_of_8(channels)

    @field_validator("beta_end")
    @classmethod
    def _check_betas(cls, beta_end: float, info: ValidationInfo) -> float:
        if beta_end < info.data.get("beta_start", 0.0):
            raise ValueError("beta_end lies below beta_start; make it larger, such as 0.02")
        return beta_end

    @field_validator("sampling_steps")
    @classmethod
    def _check_sampling_steps(cls, sampling_steps: int | str, info: ValidationInfo) -> int | str:
        if sampling_steps != "all" and sampling_steps > info.data.get("timesteps", sampling_steps):
            raise ValueError("there are fewer timesteps than sampling_steps; take at most as many")
        return sampling_steps

    def images_per_step(self, pixels: int) -> int:
        """Return how many projections, of so many pixels each, a training step sees."""
        if self.batch != "auto":
            return self.batch
        return min(max(_PIXELS_PER_STEP // pixels, 1), _MOST_PER_STEP)

    @property
    def level_count(self) -> int:
        """How many noise levels there are to visit."""
        return self.timesteps if self.sampling_steps == "all" else self.sampling_steps

    @property
    def levels_that_count(self) -> int:
        """How many of the last noise levels leave a trace in what is sampled.

        Before every step, all but a share of 1 - `inr_weight` of the state is replaced by the INR.
        """
        if self.inr_weight == 0:
            return self.level_count
        needed = math.ceil(math.log(_NEGLIGIBLE) / math.log(1 - self.inr_weight) - 1e-9)
        return min(self.level_count, needed)


class Prior(Section):
    """The conditional diffusion model and its training."""

    weights: Annotated[str, Field(min_length=1)] = Field(
        "auto",
        description="Which prior to use: `shipped`, the one that comes with BesselFlow, trained on "
        "phantoms under many beams; `train`, one trained for the beam and step of each sample on "
        "the `role: train` samples and `prior.phantoms`; `own`, one trained for every sample on "
        "the INR of its own projections, turned so that what was resolved laterally stands for the "
        "depth, and on `prior.phantoms`; the path of a `.safetensors` file that an earlier run "
        "left in `priors/`; or `auto`: `train` where the sheet has `role: train` samples, else "
        "`shipped`.",
    )
    channels: list[Positive] = Field(
        [48, 96, 128],
        min_length=2,
        max_length=5,
        description="Channels of the U-Net at each resolution; multiples of 8.",
    )
    depth: Positive = Field(2, description="Residual blocks of the U-Net at each resolution.")
    steps: Positive = Field(8000, description="Optimiser steps.")
    batch: Literal["auto"] | Positive = Field(
        "auto",
        description="Blocks of 8 slices per optimiser step; `auto`: 4 on the CPU, and 32 on a GPU, "
        "which take as long there.",
    )
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
        description="Precision of the U-Net in training and sampling: `float32`, `bfloat16`, or "
        "`auto`, bfloat16 where the processor or the GPU has instructions for it.",
    )
    compile: bool = Field(
        False,
        description="Compile the U-Net (`torch.compile`) for training and sampling. It needs a C++ "
        "compiler and about a minute at the start of the first job, and does not change results "
        "but for rounding. On a GPU, a training of 64 blocks per step takes three quarters of the "
        "time: it pays from some 1700 steps on. On a CPU, samples are drawn 1.1 times as fast: it "
        "pays where that takes many minutes.",
    )
    phantoms: int = Field(
        0,
        ge=0,
        description="Number of simulated phantoms (equal parts of vessels, neurons and cells) "
        "to train on besides the `role: train` samples. Without any `train` sample, at least "
        "12 are drawn.",
    )
    acquisitions: Positive = Field(
        1,
        description="Simulated acquisitions of every `role: train` sample, each with its own "
        "brightness, noise and place of the first projection. Every one takes a fit of the INR.",
    )
    checkpoint_seconds: PositiveFloat = Field(
        60.0, description="Seconds between checkpoints, from which a rerun resumes."
    )

    def blocks_per_step(self, on_gpu: bool) -> int:
        """Return how many blocks a training step sees."""
        if self.batch != "auto":
            return self.batch
        # A GPU takes no longer for as many as it can be given while it is told what to do.
        return 32 if on_gpu else 4

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: list[int]) -> list[int]:
        return multiples_of_8(channels)

    @field_validator("patch")
    @classmethod
    def _check_patch(cls, patch: int) -> int:
        if patch % 16:
            raise ValueError("patch must be a multiple of 16, such as 64")
        return patch


class Refine(Section):
    """Sampling from the diffusion model, and how far it is trusted."""

    # With the four views of the first, a single sample takes at most 25 evaluations of a slice.
    evaluations: Annotated[int, Field(ge=2, le=22)] = Field(
        8,
        description="Network evaluations per slice and posterior sample. The first is shared by "
        "all samples, and gives the posterior mean: it is made of four views, mirrored along y "
        "and x.",
    )
    samples: Positive = Field(
        4,
        description="Posterior samples per work unit. With two or more, an uncertainty is stored, "
        "which comes from their spread and from how far the prior moved the INR.",
    )
    trust: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="How far the prior is followed: 1 takes its volume, 0 that of the INR, values "
        "between mix both. `auto` decides for every sample and channel: it takes the mixture that "
        "best predicts what was kept from both (`validation.hold_out`), with less of the "
        "prior the less certain its share is, and the INR where nothing can be.",
    )

    @property
    def gives_uncertainty(self) -> bool:
        """Whether there is more than one answer that a standard deviation can be taken of."""
        return self.samples > 1
