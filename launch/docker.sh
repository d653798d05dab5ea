#!/usr/bin/env bash
# mulligan in its image, with runs/ and prepared/ of the working directory: what it writes there is yours.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag mulligan .
#   launch/docker.sh train name=first
#   DATA=corpus launch/docker.sh train data=files 'data.sources.files.paths=[data/**/*.txt]'
#
# IMAGE        image to run (mulligan).
# ENGINE       docker, or another program that takes the same options (docker).
# DATA         a folder of texts, seen read-only as data/ inside (none).
# GPUS         GPUs to give it, as --gpus takes them; none: no GPU (all, where the machine has any).
# SHM_SIZE     shared memory, which NCCL and loader processes need (8g).
# DOCKER_ARGS  further words for `docker run`, such as "--network=host --cpus=4" (none).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"

mkdir -p runs prepared # made by the engine they would be root's

options=(
  --rm
  --init # as process 1, Python would not hear SIGTERM outside of fit
  --user "$(id -u):$(id -g)"
  --shm-size "${SHM_SIZE:-8g}"
  --volume "$PWD/runs:/work/runs"
  --volume "$PWD/prepared:/work/prepared"
)
[[ -z ${DATA-} ]] || options+=(--volume "$(cd "$DATA" && pwd):/work/data:ro")

gpus=${GPUS-}
if [[ -z $gpus ]] && nvidia-smi --list-gpus >/dev/null 2>&1; then gpus=all; fi
[[ ${gpus:-none} == none ]] || options+=(--gpus "$gpus")

if [[ -t 0 && -t 1 ]]; then options+=(--interactive --tty); fi

# By name alone, so that no key is seen in a list of processes; what is not set here is not set inside.
for name in $(compgen -e); do
  case $name in
    WANDB_* | HF_* | MULLIGAN_TRACEBACK | NCCL_* | GLOO_* | OMP_* | GOMP_* | MALLOC_* | GLIBC_TUNABLES) options+=(--env "$name") ;;
  esac
done

read -r -a more <<<"${DOCKER_ARGS-}"
exec "${ENGINE:-docker}" run "${options[@]}" "${more[@]}" "${IMAGE:-mulligan}" "$@"
