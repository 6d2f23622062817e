# shellcheck shell=bash disable=SC2034 # names for whoever sources this
# Names and places that everything in tests/real agrees on. Sourced, never run.

real=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=$(cd "$real/../.." && pwd)

# Docker's layers need a real file system beneath them (overlay2 refuses overlay and tmpfs), which /tmp often is not.
state=${CERTROLL_REAL_DIR:-/var/tmp/certroll-real}

bridge=certroll0
network=10.77.0
control_plane_hosts=(n1 n2 n3)
worker_hosts=(n4 n5)
all_hosts=("${control_plane_hosts[@]}" "${worker_hosts[@]}")

etcd_image=rancher/coreos-etcd:v3.3.10-rancher1
hyperkube_image=rancher/hyperkube:v1.11.6-rancher1
rke_tools_image=rancher/rke-tools:v0.1.15

# The address of host n3 is 10.77.0.13.
address_of() { echo "$network.1${1#n}"; }

is_control_plane() { [[ " ${control_plane_hosts[*]} " == *" $1 "* ]]; }

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

# Seconds with one digit since a point in time that was taken from EPOCHREALTIME.
seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      say "gave up waiting for $what"
      return 1
    fi
    sleep 0.2
  done
}

# Runs one function for each host at the same time; fails where one of them fails.
on_each() {
  local function=$1 host failed=0 pids=()
  shift
  for host in "$@"; do
    "$function" "$host" &
    pids+=("$!")
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return "$failed"
}
