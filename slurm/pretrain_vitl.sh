#!/usr/bin/env bash
# Pretrains CAFT-L, 2,048 images a step on 64 GPUs. Submit it from the repository's folder; what
# follows the script's name goes to the config:
#
#     sbatch slurm/pretrain_vitl.sh run=RUNS/caft-l data.train=PACKED
#     sbatch --nodes=1 slurm/pretrain_vitl.sh run=RUNS/caft-l data.train=PACKED data.batch_size=256
#
# Options of sbatch before the script's name win over those below. The same command goes on with a
# run that was stopped. RANKS_PER_NODE is for nodes without GPUs, PYTHON for another environment.
#SBATCH --job-name=caft-l
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail

python=${PYTHON:-.venv-train/bin/python}
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
# One port a job, so that two jobs on a node do not meet.
port=$((20000 + SLURM_JOB_ID % 10000))

# One launcher a node, which starts a rank a GPU.
srun --kill-on-bad-exit=1 "$python" -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}" \
    --rdzv-backend c10d \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "${MASTER_ADDR:-${nodes%%$'\n'*}}:$port" \
    -m pretrain train configs/pretrain/caft_l_30m.yaml "$@"
