"""The names of the methods, and which of them build on which."""

from typing import Literal, get_args

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
DEFAULT_METHODS = (
    "interpolation",
    "spectral",
    "variational",
    "inr",
    "microdiffusion",
    "diffusion",
)
NEEDS = {
    "variational": ("spectral",),
    "inr": ("spectral",),
    "microdiffusion": ("inr",),
    "diffusion": ("inr",),
}
