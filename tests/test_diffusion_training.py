"""Training the denoiser: what it is shown, that it learns, and goes on where it was."""

import logging
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from besselflow.config import Prior
from besselflow.device import compile_network
from besselflow.diffusion import augmentation, training
from besselflow.diffusion.blocks import CONTEXT, NEAREST, REACH, SLICES
from besselflow.diffusion.network import Denoiser
from besselflow.diffusion.prior import BLIND, HIGHEST_NOISE, LOWEST_NOISE
from besselflow.diffusion.training import TrainingBlocks, train_prior
from besselflow.errors import InputError
from besselflow.landmarks import decode
from interruption import interrupt
from tiny_priors import tiny_denoiser, toy_acquisition

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
TINY = Prior(
    channels=[8, 16],
    depth=1,
    steps=8,
    batch=2,
    patch=16,
    precision="float32",
    checkpoint_seconds=1e-9,
)
OWN = slice(REACH, REACH + SLICES)


@pytest.fixture(scope="module")
def acquisitions():
    return {name: toy_acquisition(seed) for seed, name in enumerate(["a", "b"])}


class Batches:
    """Training batches of a noise-free acquisition whose INR is the truth, to compare with it."""

    def __init__(self):
        # Of beams as long as this, five overlap so much that a block sees all of each.
        acquisition = toy_acquisition(3, (40, 24, 20), noise=0.0, length=4.0, step=2.0)
        acquisition = replace(acquisition, inr=acquisition.truth, noise=0.01)
        self.acquisition = acquisition
        settings = TINY.model_copy(update={"batch": 4})
        pairs = [TrainingBlocks.of(acquisition, CPU)]
        self.drawn = [training._draw_batch(pairs, settings, (seed, 5), CPU) for seed in range(40)]

    def items(self):
        """Return the inputs of every block, and what it is to estimate."""
        for batch in self.drawn:
            yield from zip(*batch.inputs, batch.clean, strict=True)


@pytest.fixture(scope="module")
def batches():
    return Batches()


def test_the_shapes_are_those_that_the_denoiser_takes(batches):
    noisy, sigma, inr, spectral, projections, geometry, noise = batches.drawn[0].inputs
    for volume in (noisy, inr, spectral):
        assert volume.shape == (4, CONTEXT, 16, 16)
    assert projections.shape == (4, NEAREST, 16, 16)
    assert geometry.shape == (4, NEAREST, CONTEXT)
    assert sigma.shape == noise.shape == (4,)
    # Noise and light are brightened alike.
    brightness = noise.log() - math.log(0.01)
    assert float(brightness.abs().max()) <= 0.4 and float(brightness.std()) > 0.01


def test_patches_are_no_larger_than_the_volumes(acquisitions):
    settings = TINY.model_copy(update={"patch": 64})
    pairs = [TrainingBlocks.of(each, CPU) for each in acquisitions.values()]
    batch = training._draw_batch(pairs, settings, (0,), CPU)
    # Two of the 20 rows are not learnt from.
    assert batch.clean.shape == (2, SLICES, 18, 18)


def test_rows_that_are_to_stay_unseen_are_not_learnt_from(acquisitions):
    whole = acquisitions["a"]
    learnt = TrainingBlocks.of(whole, CPU)
    assert whole.learnt_rows == slice(0, 18)
    images = [whole.truth, whole.inr, whole.spectral, whole.projections]
    assert np.array_equal(learnt.images, np.concatenate([image[:, :18] for image in images]))


def test_projections_are_those_of_the_slices_however_a_block_is_flipped(batches):
    complete = 0
    for _, _, truth, _, projections, geometry, _, _ in batches.items():
        seen = torch.einsum("pz,zyx->pyx", geometry / SLICES, truth)
        for row, predicted, measured in zip(geometry, seen, projections, strict=True):
            # Rows that reach beyond the context, or the volume, tell only of a part.
            if float(row.sum()) == pytest.approx(SLICES, abs=1e-3):
                torch.testing.assert_close(predicted, measured, atol=1e-5, rtol=1e-4)
                complete += 1
    assert complete > 500


@pytest.fixture
def plain_views(monkeypatch):
    """Patches are neither turned nor brightened."""
    monkeypatch.setattr(augmentation, "_WARPED_SHARE", 0.0)
    monkeypatch.setattr(augmentation, "_GAIN", 0.0)


def test_blocks_are_flipped_along_every_axis_and_transposed(plain_views):
    """A patch is found in the truth as it lies there, or flipped, or transposed."""
    batches = Batches()
    truth = torch.from_numpy(batches.acquisition.truth)
    places = truth.unfold(1, 16, 1).unfold(2, 16, 1)
    found = set()
    for *_, clean in batches.items():
        if len(found) == 16:
            return
        for upside_down in (False, True):
            for turned in range(8):
                image = clean.flip(0) if upside_down else clean
                image = image.flip([1] * (turned & 1) + [2] * (turned >> 1 & 1))
                image = image.transpose(1, 2) if turned & 4 else image
                # One slice decides where it can be.
                hits = (places == image[3]).flatten(3).all(dim=3).nonzero()
                for z, y, x in hits.tolist():
                    own = truth[max(z - 3, 0) : z + 5, y : y + 16, x : x + 16]
                    if own.shape == image.shape and torch.equal(own, image):
                        found.add((upside_down, turned))
    pytest.fail(f"found only {sorted(found)}")


def test_what_is_to_be_estimated_is_the_middle_of_the_truth(batches):
    for noisy, sigma, truth, _, _, _, _, clean in batches.items():
        torch.testing.assert_close(clean, truth[OWN], rtol=0, atol=0)
        if sigma == BLIND:
            continue
        noise = (noisy - truth) / sigma
        assert float(noise[OWN].std()) == pytest.approx(1, abs=0.1)
        assert abs(float(noise[OWN].mean())) < 0.1


def test_mirrored_slices_share_their_noise(batches):
    mirrored = 0
    for noisy, sigma, truth, _, _, _, _, _ in batches.items():
        if sigma == BLIND:
            continue
        same = (truth[:, None] == truth).flatten(2).all(dim=2) & (truth.sum(dim=(1, 2)) > 0)
        for first, second in same.triu(diagonal=1).nonzero().tolist():
            torch.testing.assert_close(noisy[first], noisy[second], rtol=0, atol=0)
            mirrored += 1
    assert mirrored > 50


def test_half_of_the_blocks_see_the_inr_in_the_place_of_a_state(batches):
    levels = torch.cat([batch.sigma for batch in batches.drawn])
    blind = levels == BLIND
    states = torch.cat([batch.inputs[0] for batch in batches.drawn])
    inr = torch.cat([batch.inputs[2] for batch in batches.drawn])
    assert torch.equal(states[blind], inr[blind])
    assert 0.35 < float(blind.float().mean()) < 0.65
    others = levels[~blind]
    assert float(others.min()) >= LOWEST_NOISE and float(others.max()) < HIGHEST_NOISE
    # Every factor between two levels is as frequent as any other.
    middle = math.log(LOWEST_NOISE * HIGHEST_NOISE) / 2
    assert float(others.log().median()) == pytest.approx(middle, abs=0.8)


def test_bright_patches_are_preferred(plain_views):
    acquisition = toy_acquisition(0, (24, 60, 60))
    dark = np.zeros_like(acquisition.inr)
    dark[:, :20, :20] = acquisition.inr[:, :20, :20] + 1
    pairs = [TrainingBlocks.of(replace(acquisition, inr=dark), CPU)]
    lit = []
    for seed in range(60):
        inr = training._draw_batch(pairs, TINY, (seed,), CPU).inputs[2]
        lit += (inr.mean(dim=(1, 2, 3)) > 0).tolist()
    chance = 20**2 / (38 * 45)
    # The brighter of two: both must be dark for a dark one.
    assert np.mean(lit) == pytest.approx(1 - (1 - chance) ** 2, abs=0.12)


def test_loss_of_the_linear_estimate_is_one(plain_views):
    """Whatever the noise level, if the error of the INR is the same everywhere."""
    acquisition, rng = toy_acquisition(0, (24, 60, 60)), np.random.default_rng(0)
    wrong = acquisition.truth + 0.2 * rng.standard_normal(acquisition.truth.shape)
    pairs = [TrainingBlocks.of(replace(acquisition, inr=wrong.astype(np.float32)), CPU)]
    denoiser = Denoiser([8, 16], 1, 0.2)
    for seed in range(5):
        batch = training._draw_batch(pairs, TINY, (seed,), CPU)
        with torch.no_grad():
            assert float(training._weighted_loss(denoiser, batch)) == pytest.approx(1, abs=0.1)


def test_each_block_knows_the_error_of_the_inr_in_its_slices():
    acquisition = toy_acquisition(0)
    error = np.linspace(0.1, 0.9, len(acquisition.truth), dtype=np.float32)
    wrong = replace(acquisition, inr=acquisition.truth + error[:, None, None])
    pair = TrainingBlocks.of(wrong, CPU)
    assert len(pair.errors) == len(pair.blocks)
    for block, found in zip(pair.blocks, pair.errors, strict=True):
        inside, _ = block.inside(len(error))
        assert found == pytest.approx(np.sqrt(np.mean(error[inside] ** 2)), rel=1e-5)
    batch = training._draw_batch([pair], TINY, (0,), CPU)
    # As bright as the block is looked at.
    brightness = batch.inputs[-1] / acquisition.noise
    found = (batch.error / brightness)[:, None]
    assert np.isclose(found, np.float32(pair.errors), rtol=1e-5).any(axis=1).all()


def test_blocks_count_by_their_own_error():
    """The same share of what is missing is the same loss, whether little or much is missing."""
    shape, denoiser = (1, SLICES, 4, 4), Denoiser([8, 16], 1, 0.1)
    for error, sigma in ((0.02, 1.0), (0.5, 1.0), (0.1, 0.05)):
        left = error * sigma / math.hypot(error, sigma)
        inputs = (torch.full(shape, 3.0 + 0.5 * left),)
        levels = torch.tensor([sigma]), torch.full(shape, 3.0), torch.tensor([error])
        batch = training._Batch(inputs, *levels)
        known = torch.nn.Identity()
        known.inr_error = denoiser.inr_error
        assert float(training._weighted_loss(known, batch)) == pytest.approx(0.25, rel=1e-3)


def test_every_weight_has_one_optimiser():
    denoiser = tiny_denoiser()
    muon, adam = training._optimisers(denoiser, 1e-3)
    weights = [w for o in (muon, adam) for group in o.param_groups for w in group["params"]]
    assert len({id(w) for w in weights}) == len(weights) == len(list(denoiser.parameters()))
    assert isinstance(muon, torch.optim.Muon)
    assert muon.param_groups[0]["lr"] == pytest.approx(10 * adam.param_groups[0]["lr"])


def test_resumed_training_is_the_undisturbed_one(acquisitions, tmp_path, caplog):
    whole, facts = train_prior(acquisitions, TINY, 3, tmp_path / "whole.pt", CPU)
    path = tmp_path / "prior.pt"
    interrupt(5, lambda: train_prior(acquisitions, TINY, 3, path, CPU))
    with caplog.at_level(logging.INFO, "besselflow"):
        resumed, facts_of_resumed = train_prior(acquisitions, TINY, 3, path, CPU)
    assert f"resuming from {path} at step 4" in caplog.messages
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weights, rtol=0, atol=0)
    assert facts_of_resumed["curve"] == facts["curve"] and len(facts["curve"]) == 8


@pytest.mark.parametrize(
    ("changes", "again"),
    [({}, False), ({"checkpoint_seconds": 9.0}, False), ({"steps": 3}, True), ({"depth": 2}, True)],
)
def test_what_is_trained_is_kept(acquisitions, tmp_path, caplog, changes, again):
    kept, short = tmp_path / "kept.pt", TINY.model_copy(update={"steps": 2})
    first, facts = train_prior(acquisitions, short, 3, tmp_path / "a.pt", CPU, kept)
    other = short.model_copy(update=changes)
    with caplog.at_level(logging.INFO, "besselflow"):
        second, found = train_prior(acquisitions, other, 3, tmp_path / "b.pt", CPU, kept)
    assert any(text.startswith("training 100 %") for text in caplog.messages) == again
    assert (found["fingerprint"] != facts["fingerprint"]) == again
    if not again:
        assert found == facts
        for name, weights in first.state_dict().items():
            torch.testing.assert_close(second.state_dict()[name], weights, rtol=0, atol=0)
    # What was trained last is there.
    _, last = train_prior(acquisitions, other, 3, tmp_path / "c.pt", CPU, kept)
    assert last == found


def test_weights_are_averaged_over_the_steps(acquisitions, tmp_path):
    denoiser, _ = train_prior(acquisitions, TINY, 3, tmp_path / "c.pt", CPU)
    last = torch.load(tmp_path / "c.pt", weights_only=True)["state"]
    assert last["step"] == TINY.steps
    for name, weights in denoiser.state_dict().items():
        torch.testing.assert_close(weights, last["average"][name], rtol=0, atol=0)
        assert not torch.equal(weights, last["network"][name])


def test_another_seed_gives_another_network(acquisitions, tmp_path):
    short = TINY.model_copy(update={"steps": 2})
    one, other = (train_prior(acquisitions, short, s, tmp_path / f"{s}", CPU)[1] for s in (3, 4))
    assert one["curve"] != other["curve"] and one["fingerprint"] != other["fingerprint"]


def test_a_step_sees_as_many_blocks_as_the_device_takes_well(acquisitions, tmp_path):
    settings = TINY.model_copy(update={"batch": "auto", "steps": 1})
    assert train_prior(acquisitions, settings, 3, tmp_path / "a", CPU)[1]["batch"] == 4
    assert train_prior(acquisitions, TINY, 3, tmp_path / "b", CPU)[1]["batch"] == TINY.batch
    assert settings.blocks_per_step(on_gpu=True) == 32


def test_training_on_a_checkpoint_of_other_data_starts_over(acquisitions, tmp_path, caplog):
    path, short = tmp_path / "c.pt", TINY.model_copy(update={"steps": 3})
    train_prior(acquisitions, short, 3, path, CPU)
    assert path.exists()
    other = {name: replace(each, truth=2 * each.truth) for name, each in acquisitions.items()}
    with caplog.at_level(logging.INFO, "besselflow"):
        train_prior(other, short, 3, path, CPU)
    assert any("other settings or data; starting over" in text for text in caplog.messages)


@pytest.mark.parametrize("changed", ["inr", "spectral", "noise"])
def test_whatever_the_network_sees_tells_checkpoints_apart(acquisitions, tmp_path, changed):
    short, prints = TINY.model_copy(update={"steps": 1}), []
    one = acquisitions["a"]
    for each in (one, replace(one, **{changed: np.float32(1.5) * getattr(one, changed)})):
        _, info = train_prior({"a": each}, short, 3, tmp_path / "c.pt", CPU)
        prints.append(info["fingerprint"])
    assert prints[0] != prints[1]


@pytest.fixture(scope="module")
def trained(acquisitions, tmp_path_factory):
    settings = TINY.model_copy(
        update={"channels": [16, 24], "steps": 150, "batch": 4, "checkpoint_seconds": 1e9}
    )
    folder = tmp_path_factory.mktemp("trained")
    return train_prior(acquisitions, settings, 3, folder / "c.pt", CPU)


def test_training_lowers_the_loss_and_beats_the_inr(trained, acquisitions):
    denoiser, info = trained
    losses = [loss for _, loss in info["curve"]]
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:5])
    # Without a state, the denoiser makes a better estimate than the INR is.
    errors = {"inr": [], "network": []}
    pairs = [TrainingBlocks.of(each, CPU) for each in acquisitions.values()]
    for seed in range(20):
        batch = training._draw_batch(pairs, TINY, (seed, 9), CPU)
        with torch.no_grad():
            found = denoiser(*batch.inputs)
        blind = batch.sigma == BLIND
        for name, estimate in (("network", found), ("inr", batch.inputs[2][:, OWN])):
            errors[name] += (estimate - batch.clean)[blind].square().mean(dim=(1, 2, 3)).tolist()
    assert len(errors["inr"]) > 10
    assert np.mean(errors["network"]) < 0.7 * np.mean(errors["inr"])


def test_facts_of_a_training(trained, acquisitions):
    denoiser, info = trained
    assert info["trained_on"] == ["a", "b"] and info["steps"] == 150
    assert info["parameters"] == sum(weight.numel() for weight in denoiser.parameters())
    squares = [np.mean((each.inr - each.truth) ** 2) for each in acquisitions.values()]
    assert info["inr_error"] == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-5)
    assert info["spectral_error"] > info["inr_error"] == denoiser.inr_error
    assert not denoiser.training


def test_what_tells_a_leak_stays_with_the_prior(acquisitions, tmp_path):
    marks = np.array([3, 2**63 + 5], np.uint64)
    known = {
        "a": acquisitions["a"],
        "b": replace(acquisitions["b"], digest="abc", landmarks=marks),
    }
    short = TINY.model_copy(update={"steps": 1})
    _, info = train_prior(known, short, 3, tmp_path / "c.pt", CPU)
    assert info["digests"] == {"b": "abc"} and list(info["landmarks"]) == ["b"]
    np.testing.assert_array_equal(decode(info["landmarks"]["b"]), marks)


def test_a_perfect_inr_divides_nothing_by_zero(acquisitions, tmp_path):
    perfect = {"a": replace(acquisitions["a"], inr=acquisitions["a"].truth)}
    short = TINY.model_copy(update={"steps": 2})
    denoiser, info = train_prior(perfect, short, 3, tmp_path / "c.pt", CPU)
    assert denoiser.inr_error == 1e-3
    assert np.isfinite([loss for _, loss in info["curve"]]).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_network_estimates_the_same(acquisitions):
    pairs = [TrainingBlocks.of(each, CPU) for each in acquisitions.values()]
    batch = training._draw_batch(pairs, TINY, (0,), CPU)
    plain, compiled = tiny_denoiser(), tiny_denoiser()
    compile_network(compiled.unet)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(compiled(*batch.inputs), plain(*batch.inputs))


def test_without_a_compiler_nothing_is_compiled(acquisitions, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    settings = TINY.model_copy(update={"compile": True})
    with pytest.raises(InputError, match=r"no C\+\+ compiler; install g\+\+"):
        train_prior(acquisitions, settings, 3, tmp_path / "c.pt", CPU)
