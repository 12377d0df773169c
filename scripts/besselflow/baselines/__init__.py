"""Reconstructions that need no training: linear interpolation and the spectral Gaussian process."""
