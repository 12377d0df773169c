"""The denoiser: its preconditioning, its layers, and that each block is estimated by itself."""

import math

import pytest
import torch
from torch import nn

from besselflow.diffusion.blocks import CONTEXT, GEOMETRY_VALUES, NEAREST, REACH, SLICES
from besselflow.diffusion.network import BlockUnet, Denoiser, KernelConv, ResidualBlock
from tiny_priors import randomised, tiny_denoiser

pytestmark = pytest.mark.usefixtures("one_thread")
ERROR = 0.2
OWN = slice(REACH, REACH + SLICES)
NAMES = ("noisy", "sigma", "inr", "spectral", "projections", "geometry", "noise")


class Constant(nn.Module):
    """Stands for the U-Net: keeps its inputs and returns a constant."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, image, facts):
        self.image, self.facts = image, facts
        return torch.full_like(image[:, :SLICES], self.value)


def denoiser_with(value, error=ERROR):
    denoiser = Denoiser([8, 16], 1, error)
    denoiser.unet = Constant(value)
    return denoiser


def random_inputs(count=2, shape=(6, 8), sigma=0.3, seed=0):
    """Blocks of an INR that misses the truth by `ERROR`, as does the spectral estimate."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
    truth = 5 * draw(count, CONTEXT, *shape)
    inr = truth + ERROR * draw(*truth.shape)
    inputs = {
        "noisy": truth + sigma * draw(*truth.shape),
        "sigma": torch.full((count,), float(sigma)),
        "inr": inr,
        "spectral": inr + ERROR * draw(*truth.shape),
        "projections": draw(count, NEAREST, *shape),
        "geometry": draw(count, NEAREST, CONTEXT).abs(),
        "noise": torch.linspace(0.01, 0.05, count),
    }
    return inputs, truth


@pytest.mark.parametrize("sigma", [0.003, 0.2, 1.0])
def test_untrained_denoiser_is_the_linear_estimate(sigma):
    inputs, _ = random_inputs(sigma=sigma)
    torch.manual_seed(0)
    found = Denoiser([8, 16], 2, ERROR)(**inputs)
    noisy, inr = inputs["noisy"][:, OWN], inputs["inr"][:, OWN]
    weight = ERROR**2 / (ERROR**2 + sigma**2)
    assert found.shape == (2, SLICES, 6, 8)
    torch.testing.assert_close(found, inr + weight * (noisy - inr))


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_linear_estimate_is_the_best_one(sigma):
    inputs, truth = random_inputs(4, (50, 50), sigma)
    left = ERROR * sigma / math.hypot(ERROR, sigma)
    found = denoiser_with(0.0)(**inputs)
    assert float((found - truth[:, OWN]).std()) == pytest.approx(left, rel=0.01)
    for wrong in (0.5 * ERROR, 2 * ERROR):
        worse = denoiser_with(0.0, wrong)(**inputs)
        assert float((worse - truth[:, OWN]).std()) > 1.005 * left


@pytest.mark.parametrize("sigma", [0.01, 0.2, 1.0])
def test_network_output_is_scaled_to_what_is_missing(sigma):
    inputs, _ = random_inputs(sigma=sigma)
    moved = denoiser_with(1.0)(**inputs) - denoiser_with(0.0)(**inputs)
    spread = ERROR * sigma / math.hypot(ERROR, sigma)
    torch.testing.assert_close(moved, torch.full_like(moved, spread), atol=3e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.01, 0.2, 1.0])
def test_network_sees_differences_of_unit_variance(sigma):
    inputs, _ = random_inputs(4, (60, 60), sigma)
    denoiser = denoiser_with(0.0)
    denoiser(**inputs)
    noisy, inr, spectral, projections = denoiser.unet.image.split(
        [CONTEXT, CONTEXT, CONTEXT, NEAREST], dim=1
    )
    for part in (noisy, spectral):
        for channel in range(CONTEXT):
            assert float(part[:, channel].std()) == pytest.approx(1, abs=0.03)
    # Beside them it sees brightness itself.
    torch.testing.assert_close(inr, 3 * inputs["inr"])
    torch.testing.assert_close(projections, 3 * inputs["projections"])


def test_network_is_told_geometry_and_levels():
    inputs, _ = random_inputs(3)
    inputs["sigma"] = torch.tensor([0.003, 0.1, 1.0])
    inputs["noise"] = torch.tensor([0.0, 0.01, 0.1])
    denoiser = denoiser_with(0.0)
    denoiser(**inputs)
    geometry, levels = denoiser.unet.facts.split([GEOMETRY_VALUES, 2], dim=1)
    torch.testing.assert_close(geometry.view(3, NEAREST, CONTEXT), inputs["geometry"])
    # Logarithms, also of no noise at all, that neither level makes large.
    assert torch.isfinite(levels).all() and levels.abs().max() < 3
    assert torch.all(torch.diff(levels, dim=0) > 0.3)


def test_each_block_is_estimated_by_itself():
    denoiser = tiny_denoiser(inr_error=ERROR)
    inputs, _ = random_inputs(3)
    inputs["sigma"] = torch.tensor([0.05, 0.9, 0.05])
    with torch.no_grad():
        together = denoiser(**inputs)
        for n in range(3):
            alone = denoiser(**{name: value[n : n + 1] for name, value in inputs.items()})
            torch.testing.assert_close(together[n : n + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changed", NAMES)
def test_every_input_matters(changed):
    denoiser = tiny_denoiser(inr_error=ERROR)
    inputs, _ = random_inputs()
    other, _ = random_inputs(seed=1, sigma=0.5)
    other["noise"] = 4 * inputs["noise"]
    with torch.no_grad():
        first = denoiser(**inputs)
        moved = denoiser(**inputs | {changed: other[changed]})
    assert float((first - moved).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 12), (10, 5)])
def test_images_of_any_size_are_continued_beyond_their_edges(shape):
    torch.manual_seed(0)
    denoiser = Denoiser([8, 8, 16], 1, ERROR)
    nn.init.normal_(denoiser.unet.exit.weight)
    inputs, _ = random_inputs(shape=shape)
    height, width = (4 * math.ceil(length / 4) for length in shape)
    padding = (0, width - shape[1], 0, height - shape[0])
    images = ("noisy", "inr", "spectral", "projections")
    padded = {name: nn.functional.pad(inputs[name], padding, mode="replicate") for name in images}
    with torch.no_grad():
        found, whole = denoiser(**inputs), denoiser(**inputs | padded)
    assert found.shape == (2, SLICES, *shape) and torch.isfinite(found).all()
    torch.testing.assert_close(found, whole[:, :, : shape[0], : shape[1]])


@pytest.mark.parametrize(
    ("channels", "depth", "reach"), [([8], 1, 6), ([8, 16], 1, 16), ([8, 16], 2, 28)]
)
def test_what_lies_out_of_reach_changes_nothing(channels, depth, reach):
    denoiser = randomised(Denoiser(channels, depth, ERROR))
    assert denoiser.reach == pytest.approx(reach, abs=denoiser.multiple)
    inputs, _ = random_inputs(1, shape=(4, 96))
    middle = 48
    moved = {name: value.clone() for name, value in inputs.items()}
    for name in ("noisy", "inr", "spectral", "projections"):
        moved[name][..., middle] += 1
    with torch.no_grad():
        change = (denoiser(**inputs) - denoiser(**moved)).abs().amax(dim=(0, 1, 2))
    far = (torch.arange(96) - middle).abs() >= denoiser.reach
    assert far.any() and change[far].max() == 0
    near = (torch.arange(96) - middle).abs() <= denoiser.reach // 2
    assert change[near].min() > 0


def test_low_precision_changes_little():
    denoiser = tiny_denoiser(inr_error=ERROR)
    inputs, _ = random_inputs(sigma=0.5)
    with torch.no_grad():
        exact = denoiser(**inputs)
        denoiser.precision = torch.bfloat16
        low = denoiser(**inputs)
    assert low.dtype == torch.float32
    deviation = (low - exact).std() / (exact - inputs["inr"][:, OWN]).std()
    assert 0 < float(deviation) < 0.02


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (2, 2, 0), (1, 1, 0)])
def test_matrix_kernels_convolve_as_others_do(size, stride, padding):
    torch.manual_seed(0)
    known = nn.Conv2d(5, 7, size, stride, padding)
    ours = KernelConv(5, 7, size, stride, padding)
    assert ours.kernel.shape == (7, 5 * size**2)
    with torch.no_grad():
        ours.kernel.copy_(known.weight.flatten(1))
        ours.bias.copy_(known.bias)
    image = torch.randn(2, 5, 8, 6)
    torch.testing.assert_close(ours(image), known(image))


def test_matrix_kernels_start_as_others_do():
    torch.manual_seed(0)
    known = nn.Conv2d(5, 7, 3)
    torch.manual_seed(0)
    ours = KernelConv(5, 7)
    torch.testing.assert_close(ours.kernel, known.weight.flatten(1), rtol=0, atol=0)
    torch.testing.assert_close(ours.bias, known.bias, rtol=0, atol=0)


def test_residual_blocks_start_as_the_identity():
    image = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(ResidualBlock(8)(image, torch.randn(2, 128)), image)


@pytest.mark.parametrize(("channels", "depth"), [((8, 16), 1), ((8, 16, 24), 2)])
def test_hidden_matrices_are_all_kernels_between_hidden_channels(channels, depth):
    unet = BlockUnet(channels, depth)
    matrices = unet.hidden_matrices()
    assert all(matrix.ndim == 2 and min(matrix.shape) >= 8 for matrix in matrices)
    found = {id(matrix) for matrix in matrices}
    assert len(found) == len(matrices)
    kernels = {id(p) for name, p in unet.named_parameters() if name.endswith(".kernel")}
    assert found == kernels
    levels = len(channels) - 1
    # Two per residual block, and one where the resolution changes, on either way.
    assert len(matrices) == 2 * (2 * levels * depth + 2 * depth) + 2 * levels
    # Nothing that reads the inputs or writes the output is among them.
    for end in (unet.entry, unet.exit, unet.embed[0]):
        assert id(end.weight) not in found


def test_all_weights_learn():
    denoiser = tiny_denoiser(inr_error=ERROR)
    inputs, truth = random_inputs()
    (denoiser(**inputs) - truth[:, OWN]).square().mean().backward()
    for name, weight in denoiser.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name
