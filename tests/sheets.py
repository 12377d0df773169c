"""Rows of a sample sheet, and the sheet that is written of them."""

from besselflow.sample_sheet import COLUMNS

HEADER = [column.name for column in COLUMNS]
TEST = {
    "sample": "a",
    "acquisition": "a.tif",
    "stage_positions": "a.csv",
    "beam_profile": "box:6um",
    "voxel_size_z_um": "1",
    "voxel_size_y_um": "0.5",
    "voxel_size_x_um": "0.4",
    "ground_truth": "",
    "role": "test",
    "offset": "100",
}
TRAIN = TEST | {
    "sample": "t",
    "acquisition": "",
    "stage_positions": "",
    "beam_profile": "",
    "ground_truth": "t.tif",
    "role": "train",
}


def with_files(folder):
    """Write files of the names that the rows above and their variants have, without content."""
    for name in ("a.tif", "a.csv", "a_truth.tif", "t.tif", "beam.csv"):
        (folder / name).write_text(name)
    return folder


def write_sheet(folder, *rows, header=None, encoding="utf-8", newline="\n"):
    header = header or HEADER
    lines = ["\t".join(header), *("\t".join(row.get(c, "") for c in header) for row in rows)]
    path = folder / "samples.tsv"
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path
