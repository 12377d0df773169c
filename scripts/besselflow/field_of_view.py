"""What images must share to be compared, and divided, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

from besselflow.stated import TOLERANCE


@dataclass(frozen=True)
class FieldOfView:
    """Size of the images of an acquisition, and how many channels it has.

    Attributes
    ----------
    channels : int
    size : tuple of int
        (Y, X) in pixels.
    pixel_um : tuple of float, or None
        (y, x); None where it is not known.
    """

    channels: int
    size: tuple[int, int]
    pixel_um: tuple[float, float] | None

    def __str__(self) -> str:
        """Describe it, as in ``512 x 512 pixels (y, x) of 0.5 x 0.5 um and 1 channel``."""
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        size = f"{self.size[0]} x {self.size[1]} pixels (y, x)"
        if self.pixel_um is not None:
            size += " of {:g} x {:g} um".format(*self.pixel_um)
        return f"{size} and {channels}"

    def fits(self, other: FieldOfView) -> bool:
        """Return whether another one is the same, as far as is known."""
        if (self.channels, self.size) != (other.channels, other.size):
            return False
        if self.pixel_um is None or other.pixel_um is None:
            return True
        pairs = zip(self.pixel_um, other.pixel_um, strict=True)
        return all(abs(a - b) <= TOLERANCE * b for a, b in pairs)
