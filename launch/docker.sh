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
# GPUS         GPUs to give it, as --gpus takes them; none: no GPU (those of CUDA_VISIBLE_DEVICES, or all there are).
# SHM_SIZE     shared memory, which NCCL and loader processes need (8g).
# STOP_TIMEOUT seconds from `docker stop` to SIGKILL: the ranks agree to stop at the next log step, then save (300).
# DOCKER_ARGS  further words for `docker run`, such as "--network=host --cpus=4" (none).
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")") # cd would print where CDPATH is set
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"

mkdir -p runs prepared # made by the engine they would be root's

options=(
  --rm
  --init # as process 1, Python would not hear SIGTERM outside of fit
  --stop-timeout "${STOP_TIMEOUT:-300}"
  --user "$(id -u):$(id -g)"
  --shm-size "${SHM_SIZE:-8g}"
  --volume "$PWD/runs:/work/runs"
  --volume "$PWD/prepared:/work/prepared"
)
[[ -z ${DATA-} ]] || options+=(--volume "$(CDPATH='' cd -- "$DATA" && pwd):/work/data:ro")

gpus=${GPUS-}
if [[ -z $gpus ]] && nvidia-smi --list-gpus >/dev/null 2>&1; then
  case ${CUDA_VISIBLE_DEVICES-all} in
    all) gpus=all ;;
    "" | -1) gpus=none ;;
    *) gpus="\"device=$CUDA_VISIBLE_DEVICES\"" ;; # quoted: between commas --gpus looks for other options
  esac
fi
[[ ${gpus:-none} == none ]] || options+=(--gpus "$gpus")

if [[ -t 0 && -t 1 ]]; then options+=(--interactive --tty); fi

# By name alone, so that no key is seen in a list of processes; what is not set here is not set inside.
for name in $(compgen -e); do
  case $name in
    HF_HOME | *_CACHE | *_DIR | *_PATH | *_PATHS | *_FILE) ;; # lies on this machine, and cannot be made inside
    WANDB_* | HF_* | MULLIGAN_TRACEBACK | NCCL_* | GLOO_* | OMP_* | GOMP_* | MALLOC_* | GLIBC_TUNABLES) options+=(--env "$name") ;;
  esac
done

read -r -a more <<<"${DOCKER_ARGS-}"
exec "${ENGINE:-docker}" run "${options[@]}" "${more[@]}" "${IMAGE:-mulligan}" "$@"
