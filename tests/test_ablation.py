"""Checks the grid of configurations: how it is read, run and compared."""

import pandas as pd
import pytest
import yaml

import ablation as ablation_script
from besselflow.ablation import (
    ARGUMENTS_VARIABLE,
    compare,
    describe,
    load_grid,
    merge,
    passed_on,
    remember_arguments,
)
from besselflow.config import Config, load_config
from besselflow.errors import InputError
from besselflow.point_scan import POINT_SCANS
from besselflow.report.figures import LIGHT, draw_quality_by_step
from tiny_runs import ROOT

BASE = load_config({"samples": "my.tsv", "results": "out", "seed": 7})


def write_grid(folder, text):
    path = folder / "grid.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text), encoding="utf-8")
    return path


def test_the_grid_of_the_repository_has_the_ablations_of_the_paper():
    grid = load_grid(ROOT / "config" / "ablation.yaml", Config())
    schemes = {name: variant.config.microdiffusion for name, variant in grid.items()}
    assert schemes["published"] == Config().microdiffusion
    assert grid["inr-only"].config.final == "inr"
    assert schemes["without-inr"].inr_weight == 0
    assert not schemes["without-image-embedding"].use_image_embedding
    assert not schemes["without-position-embedding"].use_position_embedding
    assert not schemes["without-neighbours"].neighbour_average
    assert [n for n, s in schemes.items() if s.inr_training == "joint"] == ["joint-training"]
    assert schemes["inr-weight-0.5"].inr_weight == 0.5
    assert schemes["steps-50"].level_count == 50
    assert grid["sincos-encoding"].config.inr.encoding == "sincos"
    distinct = {str(variant.config.model_dump(exclude={"results"})) for variant in grid.values()}
    assert len(distinct) == len(grid)
    for name, variant in grid.items():
        assert variant.config.results == f"results/ablation/{name}"


def test_the_scheme_of_the_paper_is_a_configuration(tmp_path):
    """As the comment in the grid of the repository says."""
    grid = yaml.safe_load((ROOT / "config" / "ablation.yaml").read_text(encoding="utf-8"))
    grid["shared"] |= yaml.safe_load((ROOT / "config" / "published_inr.yaml").read_text())
    grid["shared"]["microdiffusion"] = {"channels": [64, 128, 128, 128]}
    published = load_grid(write_grid(tmp_path, grid), Config())["published"].config
    assert published.inr.encoding == "sincos" and published.inr.neighbour_average
    scheme = published.microdiffusion
    assert scheme.level_count == scheme.timesteps == 1000 and scheme.eta == 1
    assert (scheme.beta_start, scheme.beta_end, scheme.guidance) == (1e-4, 0.02, 1.8)
    assert scheme.inr_weight == 0.9 and scheme.condition_dropout > 0
    assert scheme.use_image_embedding and scheme.use_position_embedding


def test_configurations_are_those_of_the_run_with_changes(tmp_path):
    path = write_grid(
        tmp_path,
        {
            "shared": {"methods": ["spectral", "inr"], "final": "inr", "inr": {"width": 32}},
            "configurations": {"deep": {"inr": {"depth": 5}}, "plain": {}},
        },
    )
    grid = load_grid(path, BASE)
    assert list(grid) == ["deep", "plain"]
    assert (grid["deep"].config.inr.width, grid["deep"].config.inr.depth) == (32, 5)
    assert grid["plain"].config.inr.depth == BASE.inr.depth
    assert grid["deep"].changes == "inr.depth 5" and grid["plain"].changes == ""
    for name, variant in grid.items():
        assert variant.config.seed == 7 and variant.config.samples == "my.tsv"
        assert variant.config.results == f"out/ablation/{name}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"configurations": {"a": {"inr": {"widht": 3}}}}, 'did you mean "width"'),
        ({"configurations": {"a": {"inr": {"width": 0}}}}, "configuration a"),
        ({"configurations": {"a/b": {}}}, "a name that a folder can have"),
        ({"configurations": {}}, "not a grid of configurations"),
        ({"configuration": {"a": {}}}, "not a grid of configurations"),
        ("a: [", "not a grid of configurations"),
        ("", "not a grid of configurations"),
    ],
)
def test_wrong_grids(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_grid(write_grid(tmp_path, text), BASE)


def test_missing_grid_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml"):
        load_grid(tmp_path / "none.yaml", BASE)


def test_nested_changes():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    changed = merge(base, {"a": {"c": [3]}, "e": {"f": 5}})
    assert changed == {"a": {"b": 1, "c": [3]}, "d": 4, "e": {"f": 5}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert describe({"a": {"b": 1, "c": [3, 4]}, "e": False}) == "a.b 1, a.c 3+4, e False"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["ablation", "--profile", "profiles/slurm"], ["--profile", "profiles/slurm"]),
        (["-c", "4", "ablation", "-n"], ["--cores", "4"]),
        (["ablation", "--cores"], ["--cores", "all"]),
        (
            ["ablation", "-j", "9", "-e", "slurm", "--config", "samples=a", "-F"],
            ["--executor", "slurm", "--jobs", "9"],
        ),
        ([], []),
    ],
)
def test_where_jobs_run_is_passed_on(monkeypatch, arguments, expected):
    monkeypatch.setenv(ARGUMENTS_VARIABLE, "[]")
    remember_arguments(arguments)
    assert passed_on() == expected


def scores_of(**by_sample):
    rows = [
        (sample, method, metric, value)
        for sample, values in by_sample.items()
        for (method, metric), value in values.items()
    ]
    return pd.DataFrame(rows, columns=["sample", "method", "metric", "value"])


def a_and_b(gain):
    return scores_of(
        a={("inr", "psnr"): 30.0 + gain, ("spectral", "psnr"): 1.0, ("inr", "chi2"): 1.5},
        b={("inr", "psnr"): 32.0 + gain, ("inr", "coverage_90"): 0.5},
        c={("inr", "psnr"): 20.0 + gain},
    )


STEPS = {"a": 3.0, "b": 3.0, "c": 6.0}
BEAMS = dict.fromkeys("abc", "6 µm")
VARIANTS = {
    "first": {"changes": "", "method": "inr"},
    "second": {"changes": "inr.width 64", "method": "inr"},
}


def test_scores_are_averaged_over_the_samples_of_a_step():
    table = compare({"first": a_and_b(0.0), "second": a_and_b(1.0)}, VARIANTS, STEPS, BEAMS)
    assert list(table.columns) == [
        *("configuration", "changes", "method", "beam", "step_um", "samples", "psnr", "chi2"),
    ]
    assert table["configuration"].tolist() == ["first", "first", "second", "second"]
    assert table["step_um"].tolist() == [3.0, 6.0, 3.0, 6.0]
    assert table["samples"].tolist() == [2, 1, 2, 1]
    assert table["psnr"].tolist() == [31.0, 20.0, 32.0, 21.0]
    assert table["chi2"][0] == 1.5


def test_beams_are_not_averaged():
    beams = {"a": "12 µm", "b": "6 µm", "c": "12 µm"}
    table = compare({"first": a_and_b(0.0)}, VARIANTS, STEPS, beams)
    assert table["beam"].tolist() == ["12 µm", "12 µm", "6 µm"]
    assert table["step_um"].tolist() == [3.0, 6.0, 3.0]
    assert table["psnr"].tolist() == [30.0, 20.0, 32.0]


def test_comparison_of_beams_has_a_panel_for_each(tmp_path):
    scores = tmp_path / "first.tsv"
    a_and_b(0.0).to_csv(scores, sep="\t", index=False)
    beams = {"a": "12 µm", "b": "6 µm", "c": "12 µm"}
    table = compare({"first": a_and_b(0.0)}, VARIANTS, STEPS, beams)
    panels = draw_quality_by_step(table, "psnr", "PSNR", [], LIGHT).axes
    assert [axes.get_title() for axes in panels] == ["beam of 12 µm", "beam of 6 µm"]
    drawn = [(line.get_xdata(), line.get_ydata()) for axes in panels for line in axes.lines]
    assert [[*map(list, line)] for line in drawn] == [[[3, 6], [30, 20]], [[3], [32]]]
    (alone,) = draw_quality_by_step(table[:2], "psnr", "PSNR", [], LIGHT).axes
    assert alone.get_title() == ""
    paths = [tmp_path / name for name in ("table.csv", "table.html", "quality.png")]
    ablation_script.main({"first": scores}, VARIANTS, STEPS, beams, [], *paths)
    page = paths[1].read_text(encoding="utf-8")
    # The best of its beam and step, whatever another beam gives.
    assert "<td>12\u00a0µm</td>" in page and "<strong>30.00</strong>" in page
    assert "<strong>32.00</strong>" in page


def test_comparison_is_written_as_table_page_and_plot(tmp_path):
    scores = {}
    for name, gain in (("first", 0.0), ("second", 1.0)):
        scores[name] = tmp_path / f"{name}.tsv"
        a_and_b(gain).to_csv(scores[name], sep="\t", index=False)
    paths = [tmp_path / name for name in ("table.csv", "table.html", "quality.png")]
    ablation_script.main(scores, VARIANTS, STEPS, BEAMS, [], *paths)
    assert len(pd.read_csv(paths[0])) == 4
    page = paths[1].read_text(encoding="utf-8")
    assert "inr.width 64" in page and "<strong>32.00</strong>" in page
    assert "<strong>31.00</strong>" not in page
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert "point scan" not in page


def test_point_scans_stand_beside_the_configurations(tmp_path):
    scores, scans = tmp_path / "first.tsv", [tmp_path / f"scan-{name}.tsv" for name in "ac"]
    a_and_b(0.0).to_csv(scores, sep="\t", index=False)
    for path, sample, psnr in zip(scans, "ac", (38.0, 36.0), strict=True):
        values = {(name, "psnr"): psnr + number for number, name in enumerate(POINT_SCANS)}
        scores_of(**{sample: values}).to_csv(path, sep="\t", index=False)
    paths = [tmp_path / name for name in ("table.csv", "table.html", "quality.png")]
    ablation_script.main({"first": scores}, VARIANTS, STEPS, BEAMS, scans, *paths)
    table = pd.read_csv(paths[0]).set_index(["configuration", "step_um"])["psnr"]
    assert table["point-scan"].tolist() == [38.0, 36.0]
    assert table["thin-slices"].tolist() == [40.0, 38.0]
    page = paths[1].read_text(encoding="utf-8")
    # They are compared with, and no choice: the best of the configurations stays marked.
    assert "<strong>31.00</strong>" in page and "<strong>40.00</strong>" not in page
    assert "what a point scan would have given in the same time" in page


@pytest.mark.parametrize("metric", ["held_out_psnr", "coverage_90"])
def test_comparison_without_ground_truth(tmp_path, metric):
    path = tmp_path / "only.tsv"
    scores_of(a={("inr", metric): 3.25}).to_csv(path, sep="\t", index=False)
    paths = [tmp_path / name for name in ("table.csv", "table.html", "quality.png")]
    ablation_script.main({"first": path}, VARIANTS, STEPS, BEAMS, [], *paths)
    page = paths[1].read_text(encoding="utf-8")
    assert ("3.25" in page) == (metric == "held_out_psnr")
    assert ("No configuration has a score" in page) == (metric == "coverage_90")
