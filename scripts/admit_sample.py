"""Let a sample pass to the heavy stages, or end with the reasons why it may not."""

from pathlib import Path
from typing import Literal

from besselflow.errors import InputError
from besselflow.job import run_script
from besselflow.preflight import LIGHTS, read_examination
from besselflow.store import atomic_path


def main(record: Path, stop_at: Literal["never", "yellow", "red"], admitted: Path) -> None:
    """Write the file that the heavy stages of a sample wait for.

    Parameters
    ----------
    record : path
        What the preflight found.
    stop_at : str
        The light from which on a sample is left out, or ``never``.
    admitted : path
        File to write.

    Raises
    ------
    InputError
        The sample's light is at least that bad.
    """
    found = read_examination(record)
    if stop_at != "never" and LIGHTS.index(found.light) >= LIGHTS.index(stop_at):
        reasons = " ".join(f"({number}) {each}." for number, each in enumerate(found.findings, 1))
        raise InputError(
            f"preflight is {found.light} and preflight.stop_at is {stop_at}: {reasons}"
        )
    with atomic_path(admitted) as temporary:
        temporary.write_text(f"{found.light}\n", encoding="utf-8")


if __name__ == "__main__":
    snakemake = globals()["snakemake"]
    run_script(
        snakemake,
        main,
        record=snakemake.input.record,
        stop_at=snakemake.params.stop_at,
        admitted=snakemake.output.admitted,
    )
