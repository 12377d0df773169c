"""BesselFlow: depth-resolved volumes from Bessel-beam acquisitions."""

__version__ = "0.1.0"
