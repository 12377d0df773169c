"""What is read from the files of each format, for the documentation."""

from __future__ import annotations

FORMAT_COLUMNS = ["Format", "What to give", "Stage positions from", "Pixel size from", "Also read"]

FORMATS = (
    (
        "TIFF, BigTIFF, ImageJ stack",
        "the file",
        "ImageJ `spacing`, counted from the first plane",
        "ImageJ resolution and `unit`",
        "the axes T, C, Z; times from ImageJ `finterval`",
    ),
    (
        "folder of TIFFs, one image each",
        "the folder",
        "the stage CSV",
        "ImageJ metadata of the first file",
        "the natural order of the names (`z9` before `z10`)",
    ),
    (
        "OME-TIFF, also in several files",
        "the file; of several, any of the TIFFs, or the `.companion.ome` with their metadata, or a "
        "folder with one of these",
        "`PositionZ` of the planes, else `PhysicalSizeZ`, counted from the first plane",
        "`PhysicalSizeY`, `PhysicalSizeX`",
        "channel names, times, date",
    ),
    (
        "ScanImage BigTIFF",
        "the first file; `_00002.tif` and so on follow where their frame numbers go on",
        "`SI.hStackManager.zs`, else `zsRelative`, else `zsAllActuators`",
        "`SI.hRoiManager.imagingFovUm`",
        "volumes as time points, saved channels, date; flyback frames are dropped, frames per "
        "slice averaged or kept (column `frames`)",
    ),
    (
        "Bruker Prairie View",
        "the folder, or its XML",
        "`positionCurrent` `ZAxis`: focus or piezo, whichever moves, in any order in a `ZSeries`",
        "`micronsPerPixel`",
        "sequences as time points, also to and fro; channels, times, date; frames that follow each "
        "other at each depth averaged or kept (column `frames`)",
    ),
    (
        "Thorlabs ThorImage",
        "the folder with `Experiment.xml`",
        "`ZStage` `stepSizeUM`, counted from the first slice",
        "`LSM` `widthUM` and `heightUM`, else `pixelWidthUM`, else `pixelSizeUM`",
        "`Image_*.raw` or one TIFF per plane; volumes as time points, channels, date; flyback "
        "frames are dropped",
    ),
    (
        "OME-Zarr 0.4 and 0.5",
        "the folder of the image, or that around a single one which bioformats2raw writes",
        "scale and translation of the axis z",
        "scale of the axes y and x",
        "channel names, times; the full resolution",
    ),
    (
        "NumPy array (`.npy`)",
        "the file, of shape (Y, X, Z)",
        "the stage CSV",
        "the sheet",
        "",
    ),
)
"""Rows of the table: format, what to give, sources of positions and sizes, what else is read."""
