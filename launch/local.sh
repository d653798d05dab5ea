#!/usr/bin/env bash
# mulligan on this machine, with the environment that makes a CPU run faster. Any key can be set, as without it.
#
#   launch/local.sh train model=tiny optimizer.lr=1e-3
#   OMP_WAIT_POLICY=ACTIVE launch/local.sh train      # what is set already stays
set -euo pipefail

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")") # cd would print where CDPATH is set
# shellcheck source=launch/environment.sh
source "$root/launch/environment.sh"
mulligan=$root/.venv/bin/mulligan
[[ -x $mulligan ]] || mulligan=mulligan
exec "$mulligan" "$@"
