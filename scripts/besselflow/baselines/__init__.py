"""Reconstructions that need no training: the yardsticks of every table."""
