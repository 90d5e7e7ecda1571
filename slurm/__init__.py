"""Jobs for a cluster: scripts for `sbatch`, and `python -m slurm.submit` for many runs at once."""
