"""Dry runs: which jobs follow from a sheet and a configuration."""

import pytest

from tiny_priors import write_tiny_prior
from tiny_runs import TinyFacility, job_counts

pytestmark = pytest.mark.workflow

EVERYTHING = {
    "preflight_sample": 2,
    "preflight": 1,
    "preprocess": 2,
    "convert_ground_truth": 1,
    "reconstruct_baseline": 6,
    "fit_inr": 2,
    "simulate_training": 1,
    "train_prior": 1,
    "train_microdiffusion": 2,
    "sample_microdiffusion": 2,
    "refine": 2,
    "safeguard": 2,
    "assemble": 2,
    "validate": 2,
    "evaluate": 2,
    "report_sample": 2,
    "report_cohort": 1,
    "all": 1,
    "total": 34,
}
OF_THE_PRIOR = ("simulate_training", "train_prior", "refine", "safeguard")
PUBLISHED = ("train_microdiffusion", "sample_microdiffusion")


def plan(facility, *arguments):
    dry = facility.run("--dry-run", *arguments)
    assert dry.returncode == 0, dry.stdout
    return job_counts(dry.stdout), dry.stdout


def test_all_stages_follow_from_the_defaults(small):
    counts, output = plan(small)
    assert counts == EVERYTHING
    assert "known: fitting the implicit neural representation" in output
    assert "imaging train-other with the beam of geometry" in output
    assert not small.results.exists()


def test_no_prior_is_trained_without_diffusion(small):
    counts, _ = plan(small, "--config", "methods=[spectral,inr]", "final=inr")
    changed = {"reconstruct_baseline": 2, "total": 20}
    left_out = (*OF_THE_PRIOR, *PUBLISHED)
    assert counts == {k: v for k, v in EVERYTHING.items() if k not in left_out} | changed


def test_the_final_method_gets_the_fixed_name(small):
    _, output = plan(small, "--config", "final=spectral", "--quiet", "host")
    wanted = "results/known/methods/diffusion.ozx"
    made = next(line for line in output.splitlines() if wanted in line)
    assert "results/known/volume.ome.zarr" in made
    assert "results/known/methods/inr.ozx" in made
    assert "methods/spectral.ozx" not in output
    # Every uncertainty lies beside the volume that it belongs to.
    assert "results/known/uncertainty.ozx" in made
    assert "results/known/methods/diffusion_std.ozx" in made
    assert "methods/spectral_std" not in output


def test_a_method_without_uncertainty_states_none(small):
    _, output = plan(small, "--config", "final=inr", "--quiet", "host")
    assert "results/known/methods/spectral_std.ozx" in output
    assert "uncertainty.ozx" not in output


def test_the_light_is_estimated_once_and_the_preflight_does_not_wait_for_it(small):
    counts, output = plan(small, "--config", "corrections={flat_field: auto}", "--quiet", "host")
    assert counts == EVERYTHING | {"estimate_shading": 1, "total": 35}
    lines = output.splitlines()
    waiting = {
        lines[number - 1].split(": ", 1)[1]
        for number, line in enumerate(lines)
        if "updated by another job: " in line and "results/flat_field" in line
    }
    assert waiting == {
        "known: reading the projections",
        "unknown: reading the projections",
        "writing the report of all samples",
    }


def test_shards_multiply_the_reconstructions_only(small):
    counts, _ = plan(small, "--config", "tiling={shards: 2}")
    sharded = ("reconstruct_baseline", "fit_inr", "sample_microdiffusion", "refine", "safeguard")
    double = {name: 2 * EVERYTHING[name] for name in sharded}
    assert counts == EVERYTHING | double | {"total": 48}


def test_published_scheme_is_trained_once_per_sample(small):
    counts, output = plan(
        small,
        *("--config", "methods=[spectral,inr,microdiffusion]", "final=microdiffusion"),
        "tiling={shards: 2}",
    )
    assert counts["fit_inr"] == 4
    assert counts["train_microdiffusion"] == 2 and counts["sample_microdiffusion"] == 4
    assert "train_prior" not in counts
    assert "known: training the published diffusion model" in output


def test_joint_training_waits_for_no_other_inr(small):
    """One is fitted, too, as a method to compare with; a target without it needs none."""
    settings = ("--config", "methods=[spectral,inr,microdiffusion]", "final=microdiffusion")
    joint = (*settings, "tiling={shards: 2}", "microdiffusion={inr_training: joint}")
    counts, _ = plan(small, *joint)
    assert counts["train_microdiffusion"] == 2 and counts["sample_microdiffusion"] == 4
    assert counts["fit_inr"] == 4
    counts, _ = plan(small, "results/known/units/microdiffusion-1.zip", *joint)
    assert counts["reconstruct_baseline"] == 2 and counts["train_microdiffusion"] == 1
    assert "fit_inr" not in counts


def test_samples_of_other_geometry_get_a_prior_of_their_own(tmp_path):
    facility = TinyFacility(tmp_path)
    facility.add_test("coarse", step_um=6.0)
    facility.add_test("fine", seed=6, step_um=3.0)
    # No row has the role train: where a prior is to be trained, it is trained on phantoms.
    counts, _ = plan(facility, "--config", "prior={weights: train, phantoms: 13}")
    assert counts["train_prior"] == 2 and counts["simulate_training"] == 26


@pytest.mark.parametrize("name", ["elsewhere", "results/priors"])
def test_prior_of_an_earlier_run_is_not_trained_again(small, name):
    path = write_tiny_prior(small.folder / name / "0123456789ab.safetensors")
    try:
        relative = path.relative_to(small.folder)
        counts, _ = plan(small, "--config", f"prior={{weights: {relative}}}")
    finally:
        path.unlink()
        for folder in path.parents[: len(relative.parts) - 1]:
            folder.rmdir()
    assert counts["refine"] == counts["safeguard"] == 2
    assert "train_prior" not in counts and "simulate_training" not in counts


def test_prior_for_any_beam_is_trained_on_phantoms_alone(small):
    counts, _ = plan(
        small, "results/priors/any-beam.safetensors", "--config", "prior={phantoms: 4}"
    )
    assert counts == {"simulate_training": 4, "train_prior": 1, "total": 5}


def test_prior_is_checked_where_projections_can_be_withheld(tmp_path):
    write_tiny_prior(tmp_path / "tiny.safetensors")
    facility = TinyFacility(tmp_path, prior={"weights": "tiny.safetensors"})
    facility.add_test("many", step_um=1.5)
    # The check needs what the ranking doesn't: a prior's volume of what is left, but no mixture.
    ranked = "validation={methods: [inr]}"
    counts, _ = plan(facility, "--config", ranked)
    assert counts["hold_out"] == 1 and counts["refine"] == 2 and counts["safeguard"] == 1
    counts, _ = plan(facility, "--config", ranked, "refine={trust: 0.5}")
    assert counts["hold_out"] == counts["refine"] == counts["safeguard"] == 1


def test_what_is_there_to_be_compared_with_is_not_trained_twice(tmp_path):
    facility = TinyFacility(tmp_path, prior={"weights": "shipped"})
    facility.add_test("many", step_um=1.5)
    for choice, trained in (
        ("seed=0", 1),
        ("final=microdiffusion", 2),
        ("validation={methods: [inr, microdiffusion]}", 2),
    ):
        counts, _ = plan(facility, "--config", choice)
        assert counts["train_microdiffusion"] == counts["sample_microdiffusion"] == trained
        assert counts["fit_inr"] == 2


def test_an_excluded_sample_has_no_jobs_but_one_that_fails(tmp_path):
    facility = TinyFacility(tmp_path, methods=["interpolation"], final="interpolation")
    facility.add_test("good")
    facility.add_test("broken").write_bytes(b"not an image")
    counts, output = plan(facility)
    assert counts["preprocess"] == 1 and counts["exclude_samples"] == 1
    assert 'sample "broken" is left out' in output
