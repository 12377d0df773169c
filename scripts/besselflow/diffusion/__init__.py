"""The conditional diffusion prior: network, training, and sampling guided by INR and data."""
