"""The comparison of configurations: a table, and quality against the step of the stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from besselflow.report.figures import LIGHT, draw_quality_by_step
from besselflow.report.page import themed_figure, write_page
from besselflow.store import atomic_path

_TITLES = {
    "psnr": ("PSNR (dB)", 2),
    "psnr_3d": ("PSNR 3D (dB)", 2),
    "ssim": ("SSIM", 3),
    "dice": ("Dice", 3),
    "held_out_psnr": ("PSNR of predictions (dB)", 2),
    "chi2": ("chi²", 2),
}
_MARKED = ("psnr", "psnr_3d", "ssim", "dice", "held_out_psnr")
_QUALITY = {
    "psnr": "mean PSNR (dB)",
    "held_out_psnr": "mean PSNR of predictions (dB)",
}


def write_ablation(
    table: pd.DataFrame,
    csv_path: Path | str,
    page_path: Path | str,
    plot_path: Path | str,
    references: Sequence[str] = (),
) -> None:
    """Write the comparison as a table, a page and a plot.

    Parameters
    ----------
    table : pandas.DataFrame
        As from `besselflow.ablation.compare`.
    csv_path, page_path, plot_path : path
        CSV, HTML and PNG files to write.
    references : sequence of str
        Rows of the table that are no configurations, but what these are to be compared with.
    """
    with atomic_path(csv_path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    metric = quality_metric(table)
    label = _QUALITY.get(metric, "")
    draw = partial(draw_quality_by_step, table, metric, label, references)
    with atomic_path(plot_path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(draw(LIGHT)).print_png(file)
    columns = [(key, *_TITLES[key]) for key in _TITLES if key in table]
    reference = table["configuration"].isin(references)
    best = {
        (key, *place): scores.max()
        for key in _MARKED
        if key in table
        for place, scores in table[~reference].groupby(["beam", "step_um"])[key]
    }
    write_page(
        page_path,
        "ablation.html.j2",
        title="Configurations compared · BesselFlow",
        columns=columns,
        rows=table.to_dict("records"),
        best=best,
        steps=sorted(set(table["step_um"])),
        beams=list(dict.fromkeys(table["beam"])),
        references=sorted(set(table["configuration"][reference])),
        plot=themed_figure(draw),
        csv_name=Path(csv_path).name,
    )


def quality_metric(table: pd.DataFrame) -> str | None:
    """Return the metric to plot: the PSNR, without ground truth that of predictions."""
    return next((key for key in _QUALITY if key in table and table[key].notna().any()), None)
