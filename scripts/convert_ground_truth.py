"""Turn a ground-truth stack into an OME-Zarr volume in the intensity unit of the projections."""

from pathlib import Path

from besselflow.acquisition import open_acquisition
from besselflow.corrections import Stated, counts_to_intensity, estimated_detector
from besselflow.job import run_script
from besselflow.store import open_projections, write_volume


def main(
    ground_truth: Path,
    voxel_size_um: tuple[float, float, float],
    offset: Stated,
    gain: Stated,
    sample: str,
    truth_path: Path,
    projections: Path | None = None,
) -> None:
    """Write the volume.

    Parameters
    ----------
    ground_truth : path
        TIFF stack of slices.
    voxel_size_um : tuple of float
        (z, y, x).
    offset, gain : float, ``auto`` or None
        Detector offset in counts, and counts per photon, as for the projections.
    sample : str
        Name of the sample.
    truth_path : path
        OME-Zarr volume to write.
    projections : path or None
        Projection store that notes what was estimated; needed where the gain is ``auto``.
    """
    counts = open_acquisition(ground_truth).data
    if gain == "auto":
        detector = estimated_detector(open_projections(projections).attributes["corrections"])
        channels = counts.shape[1]
        offset, gain = detector.offset[:channels], detector.gain[:channels]
    write_volume(
        truth_path,
        counts_to_intensity(counts, offset, gain),
        tuple(voxel_size_um),
        (0.0, 0.0, 0.0),
        f"{sample} ground truth",
        {
            "sample": sample,
            "method": "ground truth",
            "unit": "counts" if gain is None else "photons",
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
        projections=snakemake.input.get("projections") or None,
    )
