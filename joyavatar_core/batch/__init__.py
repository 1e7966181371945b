"""Many videos from one table of jobs: on this machine, or by workers on a Ray cluster."""
