#!/usr/bin/env bash
# mulligan train under torchrun: the same command on every host. The same command again goes on where it stopped.
#
#   launch/torchrun.sh trainer=ddp                                  # all GPUs of this machine
#   NPROC_PER_NODE=2 launch/torchrun.sh trainer=cpu_ddp             # two processes, anywhere
#   NNODES=4 NPROC_PER_NODE=8 RDZV_ENDPOINT=HOST:PORT launch/torchrun.sh trainer=ddp trainer.num_nodes=4 name=big
#
# NNODES          hosts (1). Lightning wants it as trainer.num_nodes too.
# NPROC_PER_NODE  processes a host (auto: one a GPU, or one a core). Lightning wants it as trainer.devices too.
# MAX_RESTARTS    times that all workers are started again after one died (0 on one host, 3 on several, so that another
#                 host can take a dead one's place). torchrun heeds no exit code: a mistake in a key is tried again too.
# RDZV_ENDPOINT   HOST:PORT of the host that keeps the rendezvous, the same on all; needed when NNODES is not 1.
# RDZV_ID         the job's name there (mulligan), the same on all; another for each job at one endpoint.
# RDZV_CONF       seconds to wait for hosts to come (join_timeout=600,last_call_timeout=30).
#
# The runs and prepared folders must be on storage that all hosts share. When a host takes its own name for loopback, set
# GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME) to the name of its network interface.
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")") # cd would print where CDPATH is set
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"

nnodes=${NNODES:-1}
nproc=${NPROC_PER_NODE:-auto}
max_restarts=${MAX_RESTARTS:-$([[ $nnodes == 1 ]] && echo 0 || echo 3)}

# The workers' store must not be the rendezvous': shared, as torch has it by default, a host that takes the place of a
# dead one finds no store and all fail after a minute; apart, they go on within 10 to 16 s.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Seconds from SIGTERM to SIGKILL, 30 by default: ranks save after a step that all agree on, log_every_n_steps at most.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"
# torchrun would give each of several processes one thread; share the cores out when their number is known.
if [[ $nproc =~ ^[1-9][0-9]*$ ]]; then
  threads=$(($(nproc) / nproc))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
fi

if [[ $nnodes == 1 && -z ${RDZV_ENDPOINT-} ]]; then
  rendezvous=(--standalone)
else
  rendezvous=(
    --rdzv-backend=c10d
    --rdzv-endpoint="${RDZV_ENDPOINT:?give HOST:PORT of the host that keeps the rendezvous}"
    --rdzv-id="${RDZV_ID:-mulligan}"
  )
fi

torchrun=$root/.venv/bin/torchrun
[[ -x $torchrun ]] || torchrun=torchrun
exec "$torchrun" --nnodes="$nnodes" --nproc-per-node="$nproc" --max-restarts="$max_restarts" \
  "${rendezvous[@]}" --rdzv-conf="${RDZV_CONF:-join_timeout=600,last_call_timeout=30}" \
  -m mulligan train "$@"
