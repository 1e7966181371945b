"""Load an avatar and turn a stream into a video."""
