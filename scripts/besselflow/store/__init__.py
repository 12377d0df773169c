"""The stores on disk, OME-Zarr volumes among them; nothing else opens Zarr."""

from besselflow.store.arrays import column_edge
from besselflow.store.files import atomic_path, remove, write_json, write_tsv
from besselflow.store.projections import Projections, open_projections, write_projections
from besselflow.store.units import UnitStores, UnitWriter, open_units
from besselflow.store.volumes import Volume, open_volume, pyramid_factors, write_volume

__all__ = [
    "Projections",
    "UnitStores",
    "UnitWriter",
    "Volume",
    "atomic_path",
    "column_edge",
    "open_projections",
    "open_units",
    "open_volume",
    "pyramid_factors",
    "remove",
    "write_json",
    "write_projections",
    "write_tsv",
    "write_volume",
]
