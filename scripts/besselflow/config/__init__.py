"""The configuration: every key, its unit, its default, and the messages for wrong ones."""

from besselflow.config.corrections import Corrections
from besselflow.config.diffusion import Microdiffusion, Prior, Refine
from besselflow.config.judgement import Evaluate, Report, Validation
from besselflow.config.loading import load_config
from besselflow.config.methods import BASELINES, DEFAULT_METHODS, METHODS
from besselflow.config.preflight import Preflight
from besselflow.config.reconstruction import Inr, RichardsonLucy, Spectral, Tiling, Variational
from besselflow.config.section import Section
from besselflow.config.whole import Config

__all__ = [
    "BASELINES",
    "DEFAULT_METHODS",
    "METHODS",
    "Config",
    "Corrections",
    "Evaluate",
    "Inr",
    "Microdiffusion",
    "Preflight",
    "Prior",
    "Refine",
    "Report",
    "RichardsonLucy",
    "Section",
    "Spectral",
    "Tiling",
    "Validation",
    "Variational",
    "load_config",
]
