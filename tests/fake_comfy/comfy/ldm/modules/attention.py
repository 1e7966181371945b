"""Stand-in: never called, since on a CPU the pack uses torch's attention."""

optimized_attention = None
