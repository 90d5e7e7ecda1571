#!/usr/bin/env bash
# Captions the tars of a folder by an array of workers, one a GPU, that share the output folder.
# Submit it from the repository's folder; what follows the script's name goes to `recaption run`:
#
#     sbatch slurm/recaption.sh configs/recaption/qwen3_vl_8b.yaml input=SHARDS output=TABLES
#     sbatch --array=0-255%64 slurm/recaption.sh CONFIG.yaml input=SHARDS output=TABLES
#     sbatch --gpus-per-node=4 --cpus-per-task=40 slurm/recaption.sh CONFIG.yaml ...
#
# Options of sbatch before the script's name win over those below. Workers may join and leave at any
# time: a second array on the same output folder takes what is left. With several GPUs a worker
# spreads its model over them (engine.vllm.kwargs.tensor_parallel_size, unless it is given), without
# (--gpus-per-node=0) it runs where engine.name=existing or a CPU build of vLLM does. Its other CPUs
# decode. A job goes back to the queue until there is nothing left to take: ahead of the time limit,
# when it is preempted, and when its worker dies, MAX_CRASHES times in a row (3).
#
# A worker does not keep a GPU waiting: it ends when every shard that is left is with a worker that
# it saw alive (wait_for_others=false). Should one of those die, its own job comes back and finishes
# the shard; where that has given up, submit the same command again. PYTHON names another
# environment.
#SBATCH --job-name=recaption
#SBATCH --array=0-15
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=12
#SBATCH --mem-per-cpu=6G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
set -euo pipefail
PYTHON=${PYTHON:-.venv-recaption/bin/python}
source slurm/lib.sh
recaption "$@"
