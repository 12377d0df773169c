"""The published refinement by diffusion (MicroDiffusion), on acquired projections only."""
