"""The prior in a real run: trained on what is simulated, checked, followed, and used again."""

import json

import pytest

from besselflow.diffusion.simulation import SimulatedAcquisition
from besselflow.store import open_units
from tiny_runs import SETTINGS as TINY
from tiny_runs import TinyFacility, job_counts

pytestmark = pytest.mark.workflow

SETTINGS = {"methods": ["spectral", "inr", "diffusion"], "final": "diffusion"}
UNITS = "results/many/units/diffusion-0.zip"


def test_a_prior_is_trained_checked_and_used_again(tmp_path):
    facility = TinyFacility(tmp_path, **SETTINGS, prior=TINY["prior"] | {"acquisitions": 2})
    facility.add_test("many", step_um=1.5, known=False)
    facility.add_train("other")
    first = facility.run(UNITS)
    assert first.returncode == 0, first.stdout

    (prior,) = (facility.results / "priors").glob("*.safetensors")
    simulated = facility.results / "priors" / prior.stem
    paths = [
        simulated / "train-other/other.npz",
        simulated / "train2-other/other acquisition 2.npz",
    ]
    assert sorted(simulated.rglob("*.npz")) == sorted(paths)
    one, two = map(SimulatedAcquisition.load, paths)
    assert one.truth.shape == two.truth.shape == (18, 32, 32)
    assert one.noise != two.noise
    trained_on = json.loads(prior.with_suffix(".json").read_text(encoding="utf-8"))["trained_on"]
    assert trained_on == ["other", "other acquisition 2"]
    assert not list(facility.results.rglob("*checkpoint*"))

    units = open_units([facility.folder / UNITS])
    record = units.records[0]
    assert record["checked"] and set(record["weights"]) == {"prior", "inr"}
    assert sum(record["weights"].values()) == pytest.approx(1)
    assert record["evaluations"] == record["samples"] == 2
    paths = {name: facility.results / f"many/units/{name}-0.zip" for name in record["weights"]}
    volumes = {name: open_units([path]).arrays["volume"][0] for name, path in paths.items()}
    mixture = sum(share * volumes[name].compute() for name, share in record["weights"].items())
    assert mixture == pytest.approx(units.arrays["volume"][0].compute(), rel=1e-3, abs=1e-3)
    log = (facility.results / "many" / "logs" / "safeguard-0.log").read_text(encoding="utf-8")
    assert "by what was withheld, the mixture is prior" in log

    # Nothing is left to do, and another run takes the prior as it is.
    assert "Nothing to be done" in facility.run(UNITS).stdout
    other = TinyFacility(tmp_path / "other", **SETTINGS, prior={"weights": str(prior)})
    other.add_test("elsewhere", seed=8)
    planned = job_counts(other.run("--dry-run").stdout)
    assert planned["refine"] == planned["safeguard"] == 1 and "train_prior" not in planned


def test_a_prior_learns_from_the_sample_and_not_from_what_it_is_checked_on(tmp_path):
    facility = TinyFacility(tmp_path, **SETTINGS, prior=TINY["prior"] | {"weights": "own"})
    facility.add_test("many", step_um=1.5, known=False)
    facility.add_train("other")
    found = facility.run(UNITS)
    assert found.returncode == 0, found.stdout
    priors = facility.results / "priors"
    info = json.loads((priors / "own-many.json").read_text(encoding="utf-8"))
    assert info["trained_on"] == [f"many (its own INR along {axis})" for axis in "xy"]
    # What it learns from is the INR of what is left when projections are withheld.
    thinned = facility.results / "many" / "held_out" / "units" / "inr-0.zip"
    own = open_units([thinned]).arrays["volume"][0].compute()
    (path,) = (priors / "own-many" / "own-many-y").glob("*.npz")
    truth = SimulatedAcquisition.load(path).truth
    expected = own.swapaxes(0, 1)
    assert truth / truth.max() == pytest.approx(expected / expected.max(), abs=1e-3)
    assert "Nothing to be done" in facility.run(UNITS).stdout
