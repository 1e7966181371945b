"""Endless talking avatars: one portrait, one voice, a causal diffusion transformer, block by block."""
