"""The generated configuration files agree with the models."""

import difflib
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from besselflow.config import Config, load_config
from besselflow.config_docs import SHEET_TEMPLATE, config_yaml, generated_files, sheet_template
from besselflow.errors import ProblemsError
from besselflow.sample_sheet import read_sheet
from write_config_docs import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("relative", generated_files(), ids=str)
def test_generated_file_is_up_to_date(relative):
    expected = generated_files()[relative].splitlines(keepends=True)
    path = ROOT / relative
    found = path.read_text(encoding="utf-8") if path.is_file() else ""
    diff = difflib.unified_diff(
        found.splitlines(keepends=True), expected, str(relative), "generated from the models"
    )
    text = "".join(diff)
    assert not text, f"run python scripts/write_config_docs.py\n{text}"


def test_default_yaml_holds_the_defaults():
    values = yaml.safe_load(config_yaml())
    assert load_config(values) == Config()
    assert set(values) == set(Config.model_fields)


def test_schema_accepts_the_defaults_and_refuses_typos():
    schema = json.loads(generated_files()[Path("workflow/schemas/config.schema.json")])
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load(config_yaml())
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError, match="heigth"):
        jsonschema.validate(values | {"heigth": 1}, schema)


@pytest.mark.parametrize("relative", [None, SHEET_TEMPLATE], ids=["generated", "in config/"])
def test_template_sheet_has_no_samples_yet(tmp_path, relative):
    path = tmp_path / "samples.tsv"
    path.write_text(sheet_template() if relative is None else (ROOT / relative).read_text())
    with pytest.raises(ProblemsError, match="no samples"):
        read_sheet(path)


def test_a_sheet_that_is_there_is_left_alone(tmp_path):
    sheet = tmp_path / SHEET_TEMPLATE
    sheet.parent.mkdir()
    sheet.write_text("mine")
    written = main(tmp_path)
    assert sheet.read_text() == "mine"
    assert sheet not in written
    assert {path.relative_to(tmp_path) for path in written} == set(generated_files())
