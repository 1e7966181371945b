"""What benchmarks/gpu.py measures: the bench, and a file for each group of sections."""
