"""The whole configuration of a run."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from besselflow.config.cluster import Cluster
from besselflow.config.corrections import Corrections
from besselflow.config.diffusion import Microdiffusion, Prior, Refine
from besselflow.config.judgement import Evaluate, Report, Validation
from besselflow.config.methods import DEFAULT_METHODS, METHODS, NEEDS, Method
from besselflow.config.preflight import Preflight
from besselflow.config.reconstruction import Inr, RichardsonLucy, Spectral, Tiling, Variational
from besselflow.config.section import Section


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
        + ". `variational` and `inr` need `spectral`; `microdiffusion` and `diffusion` need `inr`. "
        "`microdiffusion` is there to be compared with; without it, a run is shorter.",
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
    preflight: Preflight = Preflight()
    corrections: Corrections = Corrections()
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
    cluster: Cluster = Cluster()

    @property
    def uncertain_methods(self) -> list[str]:
        """Methods whose volume comes with a standard deviation, in their order."""
        states = {"spectral": True, "diffusion": self.refine.gives_uncertainty}
        return [method for method in self.methods if states.get(method, False)]

    @property
    def ranked_methods(self) -> list[str]:
        """Methods that are ranked by how well they predict withheld projections."""
        chosen = self.validation.methods
        if chosen:
            return [method for method in self.methods if method in chosen]
        # It would be trained once more, to rank what is there to be compared with.
        left_out = {"microdiffusion"} - {self.final}
        return [method for method in self.methods if method not in left_out]

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: list[str]) -> list[str]:
        wrong = []
        for method in dict.fromkeys(methods):
            if methods.count(method) > 1:
                wrong.append(f"`{method}` is listed {methods.count(method)} times; list it once")
            wrong += [
                f"`{method}` builds on `{needed}`; add `{needed}` to the list"
                for needed in NEEDS.get(method, ())
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
