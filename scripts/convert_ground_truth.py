"""Turn a ground-truth stack into an OME-Zarr volume in the intensity unit of the projections."""

from pathlib import Path

from besselflow.acquisition import open_acquisition
from besselflow.corrections import counts_to_intensity
from besselflow.job import run_script
from besselflow.store import write_volume


def main(
    ground_truth: Path,
    voxel_size_um: tuple[float, float, float],
    offset: float | None,
    gain: float | None,
    sample: str,
    truth_path: Path,
) -> None:
    """Write the volume.

    Parameters
    ----------
    ground_truth : path
        TIFF stack of slices.
    voxel_size_um : tuple of float
        (z, y, x).
    offset, gain : float or None
        Detector offset in counts, and counts per photon, as for the projections.
    sample : str
        Name of the sample.
    truth_path : path
        OME-Zarr volume to write.
    """
    write_volume(
        truth_path,
        counts_to_intensity(open_acquisition(ground_truth).data, offset, gain),
        tuple(voxel_size_um),
        (0.0, 0.0, 0.0),
        f"{sample} ground truth",
        {
            "sample": sample,
            "method": "ground truth",
            "unit": "photons" if gain else "counts",
            "records": [],
        },
    )


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        ground_truth=snakemake.input.ground_truth,
        **snakemake.params.settings,
        sample=snakemake.wildcards.sample,
        truth_path=snakemake.output.truth,
    )
