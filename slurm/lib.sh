# What the jobs of this folder share; sourced, from the repository's folder.
#
# A job goes back to the queue, with the same log and the same run folder, until its training is at
# the last step, or its captioning has nothing left to take:
#
#   the ranks end with   because                                         the job
#   0                    all is done                                     ends
#   2                    a mistake that only the user can mend           ends
#   75                   a signal: they saved what they had and stopped  goes back to the queue
#   anything else        a rank or a node died                           goes back, MAX_CRASHES times
#                                                                        in a row (3)
#
# Slurm itself sends back what it preempts, and a job whose node failed (--requeue). `scancel JOB` ends
# it; `scancel --signal=USR1 JOB` saves and sends it back. What reaches its time limit Slurm would
# end for good: a job that is not done with saving LAST_MOMENT seconds (30) before goes back, too, and
# on from the checkpoint before.

PYTHON=${PYTHON:-.venv-train/bin/python}
export PYTHON PYTHONUNBUFFERED=1

# pretrain CONFIG [key=value ...]: pre-flight, then training, one rank a GPU.
pretrain() {
    begin
    local per_node=${RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-0}}
    ((per_node > 0)) || per_node=1 # a node without GPUs
    local cpus=$((SLURM_CPUS_ON_NODE / per_node))
    local ranks=(
        "--ntasks-per-node=$per_node" "--ntasks=$((per_node * SLURM_JOB_NUM_NODES))"
        "--cpus-per-task=$((cpus > 0 ? cpus : 1))" --distribution=block
    )
    srun "${ranks[@]}" "$PYTHON" -m pretrain preflight "$@" || finish $?

    # A log a rank beside the job's, and that of rank 0 in the job's, too.
    echo "a log a rank in $rank_logs"
    mkdir -p "$rank_logs"
    touch "$rank_logs/rank-0.log"
    tail --lines=0 --follow=name --pid=$$ "$rank_logs/rank-0.log" &
    local tail=$! status=0
    srun "${ranks[@]}" --kill-on-bad-exit=1 --output="$rank_logs/rank-%t.log" --open-mode=append \
        "$PYTHON" -m pretrain train "$@" || status=$?
    sleep 1 # what rank 0 said last
    kill "$tail" 2>/dev/null || true
    finish "$status"
}

# recaption [CONFIG ...] [key=value ...]: one worker of `recaption run`, with all GPUs of the job.
recaption() {
    begin
    local status=0
    # srun does not take the number of CPUs over from the job.
    srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" \
        bash -c 'source slurm/lib.sh && run_worker "$@"' worker "$@" || status=$?
    finish "$status"
}

# The worker itself, fitted to the job's CPUs and GPUs; in place of this shell.
run_worker() {
    local gpus=${SLURM_GPUS_ON_NODE:-0} cpus=${SLURM_CPUS_PER_TASK:-1}
    # The worker and the engine's process of each GPU have a CPU, the others decode.
    local decoders=$((cpus - 1 - (gpus > 0 ? gpus : 1)))
    local given=(wait_for_others=false "num_decode_processes=$((decoders > 0 ? decoders : 1))")
    ((gpus < 2)) || given+=("engine.vllm.kwargs.tensor_parallel_size=$gpus")
    exec "$PYTHON" -m recaption run "${given[@]}" "$@"
}

# Says which attempt this is, and what is to happen when the job ends, however it does.
begin() {
    # An array's own number is that of one of its jobs, too, and would mean all of them.
    job=$SLURM_JOB_ID
    [[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    job_log=$(scontrol show job "$job" --oneliner | sed -n 's/.* StdOut=\([^ ]*\).*/\1/p')
    rank_logs=${job_log%.log}
    [[ $rank_logs != "$job_log" ]] || rank_logs+=-ranks
    echo "attempt $((${SLURM_RESTART_COUNT:-0} + 1)) of job $job on" \
        "$SLURM_JOB_NODELIST, $(date '+%F %T')"
    # What the ranks leave when they have saved and stopped: the first of them to end with 75 takes
    # the others with it, and srun tells the highest status.
    export CANOPY_STOPPED_NOTE=$rank_logs.stopped
    crashes_file=$rank_logs.crashes
    rm -f "$CANOPY_STOPPED_NOTE"
    requeue_before_the_limit &
    limit_watcher=$!
    # The shell outlives the signals that reach its ranks, to decide below.
    trap : TERM USR1 USR2
    trap clean_up EXIT
    clean_nodes
}

requeue_before_the_limit() {
    trap 'kill $! 2>/dev/null; exit' TERM
    local end left
    while true; do # the limit may be moved meanwhile
        left=300
        end=$(squeue --noheader --jobs="$job" --format=%e) || end=
        [[ $end != *:* ]] || left=$(($(date -d "$end" +%s) - $(date +%s) - ${LAST_MOMENT:-30}))
        if ((left <= 0)); then
            count_crash "the time limit is near, and not all is saved" || return 0
            echo "the job goes back to the queue"
            scontrol requeue "$job"
            return
        fi
        sleep $((left < 300 ? left : 300)) &
        wait $!
    done
}

clean_up() {
    kill "$limit_watcher" 2>/dev/null || true
    clean_nodes
}

# Shared memory left by killed processes, and the job's temporary folders, once a node.
clean_nodes() {
    timeout 60 srun --overlap --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" --quiet \
        "$PYTHON" -m pretrain.distributed.leftovers --job-folder 2>/dev/null || true
}

# finish STATUS: ends the job, or sends it back to the queue.
finish() {
    local status=$1
    [[ ! -e $CANOPY_STOPPED_NOTE ]] || status=75
    if ((status == 0)); then
        rm -f "$crashes_file"
        exit 0
    fi
    # A rank's mistake may stand behind a higher status: that of the others, which it took with it.
    local errors
    errors=$(show_errors)
    if ((status == 2)) || [[ $status != 75 && -n $errors ]]; then
        echo "$errors"
        echo "the job ends: mend what is said above and submit it again"
        exit 2
    fi
    # When Slurm itself is ending the job, or has put it back, that is not ours to change.
    local state
    state=$(squeue --noheader --jobs="$job" --states=all --format=%T) || state=RUNNING
    if [[ $state != RUNNING && $state != SIGNALING ]]; then # it may still be sending USR1
        echo "Slurm is ending this attempt ($state)"
        exit "$status"
    fi
    if ((status != 75)); then
        count_crash "the ranks ended with status $status" || exit "$status"
    else
        rm -f "$crashes_file"
    fi
    echo "the job goes back to the queue"
    clean_up
    trap - EXIT
    local attempt
    for attempt in {1..10}; do # the controller may be away for a while
        if scontrol requeue "$job"; then
            sleep 300 # until Slurm ends this attempt
            break
        fi
        sleep 30
    done
    exit "$status"
}

# count_crash WHAT: fails where there were too many in a row.
count_crash() {
    local crashes=0
    # An hour of training is no crash in a row.
    [[ ! -f $crashes_file ]] || ((SECONDS >= 3600)) || crashes=$(<"$crashes_file")
    crashes=$((crashes + 1))
    echo "$1 (crash $crashes in a row)"
    echo "$crashes" >"$crashes_file"
    if ((crashes > ${MAX_CRASHES:-3})); then
        echo "too many: the job ends"
        return 1
    fi
}

# What the ranks ended with as the user's mistake; it stands in their own logs.
show_errors() {
    local logs
    # Ours, or those of submitit, whose first is the job's own.
    logs=$(compgen -G "$rank_logs/rank-*.log" || compgen -G "${job_log%_0_log.out}_*_log.err") || return 0
    tail --quiet --lines=20 $logs | grep '^error: ' | sort | uniq -c | head -5 || true
}
