"""What all sections of the configuration share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """A section that forbids unknown keys: a typo must not silently fall back to a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def multiples_of_8(channels: list[int]) -> list[int]:
    """Check the channels of a network, whose layers are split into groups of 8."""
    if any(number % 8 for number in channels):
        raise ValueError("channels must be multiples of 8, such as [24, 48, 72]")
    return channels
