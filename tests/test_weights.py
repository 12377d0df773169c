"""Weights and checkpoints that were damaged, or replaced by code: found, named and never run."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import report_sample
from besselflow.checkpoint import load_checkpoint, save_checkpoint
from besselflow.config import Microdiffusion
from besselflow.diffusion.prior import DiffusionPrior, load_prior, save_prior
from besselflow.microdiffusion.training import (
    TrainedNetwork,
    build_network,
    load_network,
    save_network,
)
from besselflow.optimisation import Plan, optimise
from besselflow.weights import load_weights, read_info, save_weights
from tiny_faults import malicious_pickle
from tiny_priors import tiny_denoiser

CPU = torch.device("cpu")
TENSORS = {
    "a": np.arange(12, dtype=np.float16).reshape(3, 4),
    "n": np.array(7),
    "turned": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "b": np.linspace(0, 1, 5, dtype=np.float32),
}


def prior_file(path):
    info = {"trained_on": ["nothing"], "steps": 3}
    save_prior(path, DiffusionPrior(tiny_denoiser(), [0.003, 1.0], [0.1, 0.1], info))
    return path


def network_file(path):
    settings = Microdiffusion(channels=[8, 16])
    save_network(path, TrainedNetwork(build_network(settings), {"steps": 2}), settings)
    return path


def flip(path, position, bits=0x10):
    content = bytearray(path.read_bytes())
    content[position] ^= bits
    path.write_bytes(content)


def test_weights_survive_their_file(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    save_weights(path, TENSORS, {"facts": "some"})
    tensors, metadata = load_weights(path)
    assert metadata == {"facts": "some"} and set(tensors) == set(TENSORS)
    for name, expected in TENSORS.items():
        assert tensors[name].dtype == expected.dtype
        np.testing.assert_array_equal(tensors[name], expected)
    assert path.stat().st_mode & 0o777 == 0o644


def test_weights_of_earlier_versions_have_no_digest_and_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", {"facts": "some"})
    tensors, metadata = load_weights(tmp_path / "w.safetensors")
    assert metadata == {"facts": "some"} and set(tensors) == set(TENSORS)


def test_no_flipped_byte_changes_weights_or_facts_unnoticed(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, TENSORS, {"facts": "some"})
    whole, noticed = path.read_bytes(), 0
    for position in range(len(whole)):
        path.write_bytes(whole)
        flip(path, position)
        try:
            tensors, metadata = load_weights(path)
        except Exception:
            noticed += 1
            continue
        # The name of the digest alone, or white space, may change without harm.
        assert metadata["facts"] == "some"
        for name, expected in TENSORS.items():
            np.testing.assert_array_equal(tensors[name], expected)
    assert noticed > 0.8 * len(whole)


@pytest.mark.parametrize(
    ("write", "load"), [(prior_file, load_prior), (network_file, load_network)]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "plain", "archive"])
def test_damaged_networks_are_named_and_code_in_their_place_is_not_run(
    tmp_path, write, load, damage
):
    path, touched = write(tmp_path / "n.safetensors"), tmp_path / "touched"
    load(path, CPU)
    if damage == "flip":
        flip(path, -3)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(malicious_pickle(touched, damage == "archive"))
    with pytest.raises(RuntimeError, match=r"n\.safetensors: not a readable .* delete the file"):
        load(path, CPU)
    assert not touched.exists()


STATE = {"step": 3, "weights": torch.arange(500.0), "curve": [[1, 0.5]]}


@pytest.mark.parametrize("archive", [False, True], ids=["plain", "archive"])
def test_code_in_place_of_a_checkpoint_is_not_run(tmp_path, archive, caplog):
    path, touched = tmp_path / "c.pt", tmp_path / "touched"
    path.write_bytes(malicious_pickle(touched, archive))
    assert load_checkpoint(path, "f") is None
    assert f"checkpoint {path} can't be read" in caplog.text and not touched.exists()
    # The same file does run its code where it is let.
    content = zipfile.ZipFile(path).read("archive/data.pkl") if archive else path.read_bytes()
    pickle.loads(content)
    assert touched.exists()


def test_no_flipped_byte_of_a_checkpoint_is_resumed_from(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, "f", STATE)
    whole = path.read_bytes()
    start = whole.find(STATE["weights"].numpy().tobytes())
    flip(path, start + 1000)
    # torch itself would go on with other weights.
    loaded = torch.load(path, weights_only=True)["state"]["weights"]
    assert not torch.equal(loaded, STATE["weights"])
    assert load_checkpoint(path, "f") is None
    for position in range(0, len(whole), 7):
        path.write_bytes(whole)
        flip(path, position)
        found = load_checkpoint(path, "f")
        assert found is None or torch.equal(found["weights"], STATE["weights"])


def test_a_whole_checkpoint_that_does_not_fit_is_named(tmp_path):
    path, network = tmp_path / "c.pt", torch.nn.Linear(2, 1)
    save_checkpoint(
        path,
        "f",
        {
            "step": 1,
            "course": [2, 2],
            "curve": [],
            "seconds": 0.0,
            "network": torch.nn.Linear(3, 1).state_dict(),
        },
    )
    plan = Plan(2, 1, "inr.learning_rate", path, "f", 1e9)
    optimiser = torch.optim.Adam(network.parameters(), 0.1)
    with pytest.raises(RuntimeError, match=r"c\.pt: can't be resumed from .* delete the file"):
        optimise(
            lambda step: network(torch.ones(1, 2)).sum(), network, [optimiser], plan, "fit", "loss"
        )


@pytest.mark.parametrize("text", ["", '{"trained_on": ["noth', "[1, 2]", "\x00\x01"])
def test_facts_of_a_prior_are_found_in_the_prior_where_their_own_file_is_damaged(
    tmp_path, text, caplog
):
    prior_file(tmp_path / "p.safetensors")
    path = tmp_path / "p.json"
    path.write_text(text)
    assert read_info(path) == {"trained_on": ["nothing"], "steps": 3}
    assert f"{path} can't be read" in caplog.text
    path.write_text(json.dumps({"trained_on": ["this"]}))
    assert read_info(path) == {"trained_on": ["this"]}


def test_a_prior_that_came_without_the_file_of_its_facts_tells_them_itself(tmp_path):
    path = prior_file(tmp_path / "p.safetensors")
    assert read_info(path) == {"trained_on": ["nothing"], "steps": 3}
    path.write_text("no weights")
    with pytest.raises(RuntimeError, match=r"p\.safetensors: not a readable prior .* another"):
        read_info(path)


def test_facts_that_are_nowhere_to_be_found_are_an_error_with_a_remedy(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("{")
    (tmp_path / "p.safetensors").write_text("no weights")
    with pytest.raises(RuntimeError, match=r"p\.json: not readable .* delete both files and run"):
        report_sample.main(None, tmp_path / "report.html", path)


def test_new_priors_carry_a_digest(tmp_path):
    with safe_open(prior_file(tmp_path / "p.safetensors"), framework="np") as file:
        assert len(file.metadata()["digest"]) == 64
