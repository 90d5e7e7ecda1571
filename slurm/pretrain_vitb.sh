#!/usr/bin/env bash
# Pretrains CAFT-B, 2,048 images a step on 64 GPUs. Submit it from the repository's folder; what
# follows the script's name goes to the config:
#
#     sbatch slurm/pretrain_vitb.sh run=RUNS/caft-b data.train=PACKED
#     sbatch --nodes=1 slurm/pretrain_vitb.sh run=RUNS/caft-b data.train=PACKED data.batch_size=256
#
# Options of sbatch before the script's name win over those below. The job goes back to the queue
# until the last step is done; the same command also goes on with a run that was stopped. Without
# GPUs (--gpus-per-node=0) a node gets one rank, or RANKS_PER_NODE. PYTHON names another environment.
# Within --signal's seconds ahead of the time limit a step and a checkpoint must fit (the run warns
# of one that takes more than train.slow_save): give more where the disk is slow.
#SBATCH --job-name=caft-b
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
source slurm/lib.sh
pretrain configs/pretrain/caft_b_30m.yaml "$@"
