"""The implicit neural representation: a network from a coordinate to an intensity, per sample."""
