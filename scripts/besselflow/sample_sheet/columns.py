"""The columns of the sample sheet, their units and what to write into them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of the sample sheet.

    Attributes
    ----------
    name : str
        Name in the header.
    required : bool
        Whether the column must be there (its cells may still be empty where the description
        says so).
    unit : str
        Unit of the values, empty where they have none.
    description : str
        What to write into it.
    example : str
        A valid cell.
    """

    name: str
    required: bool
    unit: str
    description: str
    example: str


COLUMNS = (
    Column(
        "sample",
        True,
        "",
        "Name of the sample, and of its folder in the results: letters, digits, `.`, `_` and `-`, "
        "starting with a letter or digit, at most 100 characters, unique in the sheet (also when "
        "capitals are ignored).",
        "mouse-1",
    ),
    Column(
        "acquisition",
        True,
        "",
        "Path of the file or folder with the projections, in one of the formats below. May be "
        "empty for `train` samples.",
        "data/mouse-1.tif",
    ),
    Column(
        "stage_positions",
        True,
        "",
        "Path of the CSV with the stage position of every projection. May be empty where the "
        "acquisition states them, and for `train` samples.",
        "data/mouse-1_stage.csv",
    ),
    Column(
        "beam_profile",
        True,
        "",
        "Axial profile of the beam: `box:LENGTHum`, `gaussian:FWHMum`, "
        "`bessel:NA=INNER-OUTER,wavelength=LENGTHum`, or the path of a CSV or of a TIFF with "
        "beads, see below. May be empty for `train` samples.",
        "gaussian:12um",
    ),
    Column(
        "voxel_size_z_um",
        True,
        "µm",
        "Distance of neighbouring slices of the output; that of the ground truth where there is "
        "one, and may be empty where its file states it. May also be empty where there is none: "
        "then it is the mean of the pixel sizes, but at least an eighth of the stage step.",
        "1.0",
    ),
    Column(
        "voxel_size_y_um",
        True,
        "µm",
        "Pixel size along y. May be empty where the acquisition or the ground truth states it.",
        "0.5",
    ),
    Column(
        "voxel_size_x_um",
        True,
        "µm",
        "Pixel size along x. May be empty where the acquisition or the ground truth states it.",
        "0.5",
    ),
    Column(
        "ground_truth",
        True,
        "",
        "Path of a point-scanned stack of the same field of view, in one of the formats below, or "
        "empty. Needed for `train` samples.",
        "data/mouse-1_truth.tif",
    ),
    Column(
        "role",
        True,
        "",
        "`test`: reconstruct this sample. `train`: learn the diffusion prior from its ground "
        "truth.",
        "test",
    ),
    Column(
        "offset",
        False,
        "counts",
        "Counts of an unlit pixel. Empty counts as 0. `auto` (along with the gain): where the "
        "variance of the projections vanishes, which read noise of variance s² moves down by "
        "s²/gain, so that photons and their variance agree.",
        "100",
    ),
    Column(
        "gain",
        False,
        "counts per photon",
        "Counts that one detected photon adds. Empty: the results stay in counts. `auto`: the "
        "slope of the variance over the brightness of the projections, one for each channel; the "
        "sample fails where it isn't known to 10 %, or where structure is as fine as the pixels. "
        "The ground truth is converted alike.",
        "10",
    ),
    Column(
        "lateral_psf",
        False,
        "",
        "Lateral blur of the beam: `beam` (that of the Bessel model or bead stack in "
        "`beam_profile`), `gaussian:FWHMum`, `bessel:...`, or the path of a TIFF with beads, see "
        "below. Empty: none.",
        "gaussian:0.6um",
    ),
    Column(
        "frames",
        False,
        "",
        "What becomes of frames that ScanImage or Prairie View repeated at each slice: `average`, "
        "or `time` to keep them as time points. Empty: `average`.",
        "average",
    ),
    Column(
        "overrule",
        False,
        "",
        "`yes` where the voxel size and the stage positions of this sheet count although the files "
        "state others. Empty: a disagreement is an error.",
        "yes",
    ),
    Column(
        "simulated",
        False,
        "",
        "`yes` where the acquisition was computed from the ground truth, which is free of noise. "
        "`snakemake ablation` compares such samples with point scans of the same time. Empty: no.",
        "yes",
    ),
)

ROLES = ("test", "train")
RESERVED_NAMES = (
    *("priors", "ablation", "logs", "benchmarks", "methods", "multiqc", "flat_field"),
    *("report.html", "report.csv", "report_comparisons.csv", "metrics.tsv"),
    *("preflight.html", "preflight.tsv"),
)
