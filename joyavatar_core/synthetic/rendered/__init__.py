"""Rendered people: heads from CC0 meshes and textures, lit and photographed by OpenGL, driven by the same tracks."""
