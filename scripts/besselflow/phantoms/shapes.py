"""Tubes and cells, drawn on the canvas of a field with edges one voxel wide."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from besselflow.phantoms.field import Field, Waves


def draw_tube(
    canvas: np.ndarray,
    field: Field,
    path_um: np.ndarray,
    radii_um: np.ndarray,
    brightness: np.ndarray,
    dome: float,
) -> None:
    """Draw a chain of tapered capsules.

    The edge is a ramp one voxel wide in the direction in which it is crossed. A structure thinner
    than a voxel keeps that width and loses brightness in proportion to its cross-section.

    Parameters
    ----------
    canvas : numpy.ndarray, shape (Z, Y, X), float32
        Drawn on in place; where structures meet the brighter one shows.
    field : Field
        The field of the canvas.
    path_um : numpy.ndarray, shape (N, 3)
        Points on the axis, at least two.
    radii_um, brightness : numpy.ndarray, shape (N,)
        Radius and brightness at each point.
    dome : float
        How much dimmer the wall is than the axis, 0 to 1.
    """
    finest = 0.5 * field.pitch_um
    faint = np.minimum(1.0, radii_um / finest) ** 2
    radii = np.maximum(radii_um, finest)
    reach = np.maximum(radii[:-1], radii[1:])[:, None] + 0.5 * field.voxel_um
    low = np.minimum(path_um[:-1], path_um[1:]) - reach
    high = np.maximum(path_um[:-1], path_um[1:]) + reach
    inside = np.all((high >= 0) & (low <= field.extent_um), axis=1)
    light = brightness * faint
    smallest = 1e-3 * field.pitch_um
    for i in np.flatnonzero(inside):
        found = field.window(low[i], high[i])
        if found is None:
            continue
        window, position = found
        axis = path_um[i + 1] - path_um[i]
        start = [x - x0 for x, x0 in zip(position, path_um[i], strict=True)]
        squared = max(float(axis @ axis), 1e-12)
        share = np.clip(sum(s * a for s, a in zip(start, axis, strict=True)) / squared, 0, 1)
        away = [(s - share * a) ** 2 for s, a in zip(start, axis, strict=True)]
        distance = np.sqrt(away[0] + away[1] + away[2]) + smallest
        ramp = np.sqrt(sum(d * v**2 for d, v in zip(away, field.voxel_um, strict=True)))
        ramp = (ramp + smallest * field.pitch_um) / distance
        radius = radii[i] + share * (radii[i + 1] - radii[i])
        cover = np.clip((radius - distance) / ramp + 0.5, 0, 1)
        level = light[i] + share * (light[i + 1] - light[i])
        value = cover * level * (1 - dome * np.minimum(distance / radius, 1) ** 2)
        np.maximum(canvas[window], value, out=canvas[window], casting="same_kind")


def draw_cell(
    canvas: np.ndarray,
    field: Field,
    centre_um: np.ndarray,
    *,
    semi_axes_um: np.ndarray,
    rotation: Rotation,
    irregularity: Waves,
    brightness: float,
    nucleus: float,
    texture: np.ndarray | None = None,
    holes: np.ndarray | None = None,
) -> None:
    """Draw one uneven ellipsoid.

    Parameters
    ----------
    canvas : numpy.ndarray, shape (Z, Y, X), float32
        Drawn on in place; where structures meet the brighter one shows.
    field : Field
        The field of the canvas.
    centre_um : numpy.ndarray, shape (3,)
        Centre of the ellipsoid.
    semi_axes_um : numpy.ndarray, shape (3,)
        Half its length along each of its own axes.
    rotation : scipy.spatial.transform.Rotation
        From its own axes to those of the field.
    irregularity : Waves
        What lifts and dents the surface, as a function of the direction.
    brightness : float
        Brightness outside the nucleus.
    nucleus : float
        Brightness of the inner part relative to the rest.
    texture : numpy.ndarray, shape (Z, Y, X), optional
        An image of the field to multiply with.
    holes : numpy.ndarray, shape (N, 3), optional
        Centres of dark nucleoli in units of the semi-axes.
    """
    reach = 1.15 * semi_axes_um.max() + 0.5 * field.voxel_um
    found = field.window(centre_um - reach, centre_um + reach)
    if found is None:
        return
    window, position = found
    shape = np.broadcast_shapes(*(x.shape for x in position))
    offset = np.stack(
        [np.broadcast_to(x - c, shape) for x, c in zip(position, centre_um, strict=True)], axis=-1
    )
    turn = rotation.as_matrix()
    unit = (offset @ turn) / semi_axes_um
    rho = np.linalg.norm(unit, axis=-1) + 1e-6
    direction = unit / rho[..., None]
    surface = 1 + 0.05 * np.clip(irregularity(direction), -2, 2)
    gradient = (unit / semi_axes_um) @ turn.T
    steepness = np.linalg.norm(gradient, axis=-1) + 1e-9
    # First-order distance to the ellipsoid, and the width of a voxel along that direction.
    depth = (surface - rho) * rho / steepness
    ramp = np.linalg.norm(gradient * field.voxel_um, axis=-1) / steepness + 1e-9
    value = brightness * np.clip(depth / ramp + 0.5, 0, 1)
    if nucleus != 1.0:
        value *= 1 - (1 - nucleus) / (1 + np.exp((rho - 0.6) * 14))
    if texture is not None:
        value *= texture[window]
    for hole in () if holes is None else holes:
        value *= 1 - 0.55 * np.exp(-np.sum((unit - hole) ** 2, axis=-1) / (2 * 0.16**2))
    np.maximum(canvas[window], value, out=canvas[window], casting="same_kind")
