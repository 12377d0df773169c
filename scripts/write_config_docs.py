"""Write the default configuration, its schema and its documentation from the models.

Run it after a change of `besselflow/config/` or `besselflow/sample_sheet/columns.py`:

    python scripts/write_config_docs.py

It sets `config/config.yaml` back to the defaults. A sample sheet that is there is left alone.
"""

from __future__ import annotations

from pathlib import Path

from besselflow.config_docs import SHEET_TEMPLATE, generated_files, sheet_template


def main(root: Path) -> list[Path]:
    """Write the generated files below a folder.

    Parameters
    ----------
    root : pathlib.Path
        Root of the repository.

    Returns
    -------
    list of pathlib.Path
        The files written.
    """
    texts = generated_files()
    if not (root / SHEET_TEMPLATE).exists():
        texts[SHEET_TEMPLATE] = sheet_template()
    for relative, text in texts.items():
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        (root / relative).write_text(text, encoding="utf-8")
    return [root / relative for relative in texts]


if __name__ == "__main__":
    for written in main(Path(__file__).resolve().parents[1]):
        print(written)
