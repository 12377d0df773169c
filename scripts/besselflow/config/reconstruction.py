"""Sections of the methods that learn from the sample alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from besselflow.config.section import Positive, PositiveFloat, Precision, Section


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
        "process found in the same sample, and halves it along z where slices lie in gaps that no "
        "projection sees.",
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
