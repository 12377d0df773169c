"""Wrong configurations are refused with all their mistakes, and with a remedy for each."""

from pathlib import Path

import pytest
import yaml

from besselflow.config import DEFAULT_METHODS, Config, load_config
from besselflow.errors import ProblemsError

ROOT = Path(__file__).parents[1]


def problems_of(values):
    with pytest.raises(ProblemsError) as caught:
        load_config(values, "config.yaml")
    return caught.value.problems


def test_empty_configuration_is_the_default():
    assert load_config({}) == Config()
    assert load_config({}).methods == list(DEFAULT_METHODS)


@pytest.mark.parametrize(
    ("values", "key", "remedy"),
    [
        ({"sample": "a.tsv"}, "sample", 'did you mean "samples"?'),
        ({"tilling": {}}, "tilling", 'did you mean "tiling"?'),
        ({"inr": {"step": 3}}, "inr.step", 'did you mean "steps"?'),
        ({"prior": {"chanels": [8, 8]}}, "prior.chanels", 'did you mean "channels"?'),
        ({"evaluate": {"xyzzy": 3}}, "evaluate.xyzzy", "known keys: ssim_window, centreline"),
    ],
)
def test_unknown_keys_get_a_suggestion(values, key, remedy):
    (problem,) = problems_of(values)
    assert (problem.column, problem.message, problem.remedy) == (key, "unknown key", remedy)


@pytest.mark.parametrize(
    ("values", "key", "message"),
    [
        ({"tiling": {"tile": "wide"}}, "tiling.tile", "valid integer"),
        ({"tiling": {"tile": 0}}, "tiling.tile", "greater than 0"),
        ({"tiling": {"halo": 1.5}}, "tiling.halo", "fractional"),
        ({"inr": 3}, "inr", "section of keys"),
        ({"inr": {"learning_rate": float("nan")}}, "inr.learning_rate", "finite"),
        ({"inr": {"learning_rate": float("inf")}}, "inr.learning_rate", "finite"),
        ({"inr": {"bandwidth": "aut"}}, "inr.bandwidth", "`auto` or a positive number"),
        ({"inr": {"bandwidth": -1}}, "inr.bandwidth", "`auto` or a positive number"),
        ({"spectral": {"anisotropy": 0}}, "spectral.anisotropy", "`auto` or a positive number"),
        ({"prior": {"channels": [24]}}, "prior.channels", "at least 2"),
        ({"prior": {"channels": [24, 50]}}, "prior.channels", "multiples of 8"),
        ({"prior": {"patch": 60}}, "prior.patch", "multiple of 16"),
        ({"evaluate": {"ssim_window": 8}}, "evaluate.ssim_window", "odd"),
        ({"evaluate": {"centreline": "maybe"}}, "evaluate.centreline", "`auto`, `true` or `false`"),
        ({"evaluate": {"centreline": 7}}, "evaluate.centreline", "`auto`, `true` or `false`"),
        ({"prior": {"depth": 0}}, "prior.depth", "greater than 0"),
        ({"prior": {"weights": ""}}, "prior.weights", "at least 1 character"),
        ({"prior": {"weights": 1}}, "prior.weights", "valid string"),
        ({"prior": {"precision": "half"}}, "prior.precision", "'float32' or 'bfloat16'"),
        ({"refine": {"evaluations": 23}}, "refine.evaluations", "less than or equal to 22"),
        ({"refine": {"samples": 0}}, "refine.samples", "greater than 0"),
        ({"microdiffusion": {"channels": [20, 8]}}, "microdiffusion.channels", "multiples of 8"),
        ({"microdiffusion": {"inr_weight": 1}}, "microdiffusion.inr_weight", "less than 1"),
        ({"microdiffusion": {"inr_training": "jiont"}}, "microdiffusion.inr_training", "joint"),
        ({"microdiffusion": {"beta_start": 0.5}}, "microdiffusion.beta_end", "below beta_start"),
        (
            {"microdiffusion": {"timesteps": 30, "sampling_steps": 50}},
            "microdiffusion.sampling_steps",
            "fewer timesteps than sampling_steps",
        ),
        ({"methods": []}, "methods", "at least 1"),
        ({"results": ""}, "results", "at least 1 character"),
        ({"samples": None}, "samples", "valid string"),
    ],
)
def test_wrong_values(values, key, message):
    (problem,) = problems_of(values)
    assert problem.column == key
    assert message in problem.message
    assert problem.file == "config.yaml"
    assert problem.remedy


def test_misspelt_method_gets_a_suggestion():
    (problem,) = problems_of({"methods": ["interpolation", "spectrl"], "final": "interpolation"})
    assert (problem.column, problem.value) == ("methods.1", "spectrl")
    assert problem.remedy == 'did you mean "spectral"?'


@pytest.mark.parametrize(
    ("methods", "final", "key", "message"),
    [
        (["inr"], "inr", "methods", "`inr` builds on `spectral`"),
        (["spectral", "diffusion"], "diffusion", "methods", "`diffusion` builds on `inr`"),
        (["microdiffusion"], "microdiffusion", "methods", "`microdiffusion` builds on `inr`"),
        (["spectral", "spectral"], "spectral", "methods", "listed 2 times"),
        (["spectral"], "inr", "final", "`inr` is not among the methods"),
    ],
)
def test_methods_depend_on_each_other(methods, final, key, message):
    (problem,) = problems_of({"methods": methods, "final": final})
    assert problem.column == key
    assert message in problem.message


def test_default_final_must_be_run():
    (problem,) = problems_of({"methods": ["interpolation"]})
    assert (problem.column, problem.value) == ("final", "diffusion")
    assert "choose one of interpolation" in problem.remedy


def test_all_mistakes_are_listed_at_once():
    found = problems_of(
        {
            "sed": 1,
            "methods": ["inr"],
            "inr": {"width": -1, "bandwidth": "no", "dept": 2},
            "prior": {"patch": 7, "channels": [1, 2]},
            "evaluate": {"ssim_window": 2},
        }
    )
    assert {problem.column for problem in found} == {
        "sed",
        "methods",
        "inr.width",
        "inr.bandwidth",
        "inr.dept",
        "prior.patch",
        "prior.channels",
        "evaluate.ssim_window",
    }
    assert len(found) == 8


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ["spectral", "diffusion"]),
        ({"refine": {"samples": 1, "trust": 0}}, ["spectral"]),
        ({"methods": ["interpolation"], "final": "interpolation"}, []),
    ],
    ids=["default", "one sample", "interpolation"],
)
def test_methods_that_state_an_uncertainty(values, expected):
    assert load_config(values).uncertain_methods == expected


@pytest.mark.parametrize("trust", ["auto", 0, 0.25, 1])
def test_trust_in_the_prior(trust):
    assert load_config({"refine": {"trust": trust}}).refine.trust == trust


@pytest.mark.parametrize("trust", [-0.1, 1.5, "aut", float("nan")])
def test_wrong_trust_is_one_problem(trust):
    (problem,) = problems_of({"refine": {"trust": trust}})
    assert problem.column == "refine.trust"
    assert "`auto` or" in problem.message and "number" in problem.message


@pytest.mark.parametrize("key", ["inr_weight", "start_noise"])
def test_keys_of_earlier_versions_are_unknown(key):
    (problem,) = problems_of({"refine": {key: 0.5}})
    assert (problem.column, problem.message) == (f"refine.{key}", "unknown key")


@pytest.mark.parametrize("anisotropy", ["auto", 0.5, 2])
def test_anisotropies(anisotropy):
    assert load_config({"spectral": {"anisotropy": anisotropy}}).spectral.anisotropy == anisotropy


def test_published_inr_is_a_valid_configuration():
    values = yaml.safe_load((ROOT / "config" / "published_inr.yaml").read_text())
    config = load_config(values)
    assert config.inr.encoding == "sincos" and config.inr.neighbour_average
    assert set(values) == {"inr"}
