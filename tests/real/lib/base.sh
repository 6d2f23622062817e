# shellcheck shell=bash disable=SC2034 # names for whoever sources this
# Names and places that everything in tests/real agrees on. Sourced, never run.

real=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=$(cd "$real/../.." && pwd)

# Docker's layers need a real file system beneath them (overlay2 refuses overlay and tmpfs), which /tmp often is not.
state=${CERTROLL_REAL_DIR:-/var/tmp/certroll-real}

bridge=certroll0
network=10.77.0
all_hosts=(n1 n2 n3 n4 n5)

etcd_image=rancher/coreos-etcd:v3.3.10-rancher1
hyperkube_image=rancher/hyperkube:v1.11.6-rancher1
rke_tools_image=rancher/rke-tools:v0.1.15

# The address of host n3 is 10.77.0.13.
address_of() { echo "$network.1${1#n}"; }

# use_layout LAYOUT: which host has which role, where RKE's files lie, and whose etcd's are.
use_layout() {
  control_plane_hosts=(n1 n2 n3) etcd_hosts=(n1 n2 n3) worker_hosts=(n4 n5) prefix='' etcd_owner=0
  if [[ $1 == v0.2.8-roles ]]; then
    control_plane_hosts=(n1 n2) etcd_hosts=(n2 n3 n4) worker_hosts=(n5) prefix=/opt/rke etcd_owner=52034
  fi
  kubernetes=$prefix/etc/kubernetes
}

# The layout of the cluster that is there.
use_layout "$(cat "$state/layout" 2>/dev/null)"

is_control_plane() { [[ " ${control_plane_hosts[*]} " == *" $1 "* ]]; }
is_etcd() { [[ " ${etcd_hosts[*]} " == *" $1 "* ]]; }
is_worker() { [[ " ${worker_hosts[*]} " == *" $1 "* ]]; }

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

# Seconds with one digit since a point in time that was taken from EPOCHREALTIME.
seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }

# A machine that is busy, or whose disk is, takes longer than the time in which something is expected: limits only end what hangs.
patience=3

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + patience * $1)) what=$2
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
