# shellcheck shell=bash disable=SC2154,SC2034 # names come from base.sh and go to scenarios
# What scenarios are written with: the cluster they need, the program under test, and what must hold afterwards.
# `work` is the scenario's own folder and its current one.

# What a scenario left running in the background ends with it.
trap 'jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true' EXIT

# needs LAYOUT healthy|expired: that cluster, laid out anew where the one that is there is another or was changed.
needs() {
  [[ $(cat "$state/validity" 2>/dev/null) == "$1 $2" ]] && return 0
  rm -f "$state/validity"
  lay_out "$1"
  [[ $2 != expired ]] || expire
  echo "$1 $2" >"$state/validity"
}

# needs_working LAYOUT: that cluster, healthy, with whichever certificates.
needs_working() {
  [[ $(cat "$state/validity" 2>/dev/null) == "$1 renewed" ]] || needs "$1" healthy
}

# has_renewed LAYOUT: the cluster is healthy on certificates that the pki does not know, and may serve the next scenario.
has_renewed() { echo "$1 renewed" >"$state/validity"; }

# A figure that the suite shows beneath the scenario's line.
note() { printf '%s\n' "$*" | tee -a "$work/figures" >&2; }

# will_change LAYOUT healthy|expired: the same as needs, for a scenario that leaves the cluster in another shape.
will_change() {
  needs "$@"
  rm -f "$state/validity"
}

skip() {
  echo "$*" >skipped
  exit 77
}

# as_user USER: whom certroll logs in as from here on.
as_user() { write_cluster_file "$1" cluster.yml; }

# certroll COMMAND ARGUMENT...: the program under test, with nothing of this machine's own settings.
certroll() { (become_certroll "$@"); }

# Takes the place of the shell that calls it, so that a signal to it reaches the program.
become_certroll() {
  local command=$1
  shift
  exec env --unset=SSH_AUTH_SOCK --unset=RKE_CONFIG --unset=RANCHER_URL --unset=RANCHER_TOKEN --default-signal=INT \
    HOME="$work" "$CERTROLL_BIN" "$command" --config cluster.yml --known-hosts "${known_hosts:-$state/ssh/known_hosts}" \
    --state-dir "$work/state" --command-timeout 180s --progress none --color never "$@"
}

# expect_status STATUS COMMAND...
expect_status() {
  local wanted=$1 status=0
  shift
  "$@" || status=$?
  ((status == wanted)) || fail "exit status $status instead of $wanted: $*"
}

# holds FILE WHAT FILTER [JQ OPTION...]: a filter over one JSON document that must say true. The exit status of jq would
# not do: of an empty file jq 1.6 says that all is well.
holds() {
  local file=$1 what=$2 filter=$3
  shift 3
  [[ $(jq "$@" "$filter" "$file") == true ]] || fail "does not hold: $what"
}

# must WHAT COMMAND...
must() {
  local what=$1
  shift
  "$@" || fail "does not hold: $what"
}

# A line a file under a folder of a host, with its checksum: equal listings are equal bytes.
checksums() { on "$1" sh -c "cd '$2' && find . -type f ! -path './.certroll/*' -exec sha256sum {} + | sort -k 2"; }

started() { date -d "$(on "$1" docker inspect --format '{{.State.StartedAt}}' "$2")" +%s.%N; }

# Whether a container of a host runs on the certificate that lies there now.
runs_on_new_files() {
  local written
  written=$(on "$1" stat --format %Y "$kubernetes/ssl/kube-node.pem")
  awk -v started="$(started "$1" "$2")" -v written="$written" 'BEGIN { exit !(started > written) }'
}

# The SHA-256 of a certificate as the program prints it.
sha256_of() { openssl x509 -in "$1" -noout -fingerprint -sha256 | cut -d= -f2 | tr -d : | tr '[:upper:]' '[:lower:]'; }

# expected_certificates HOST: {"kube-ca.pem": sha256, ...} of what lies in ssl/ there.
expected_certificates() {
  local file
  files_for "$1" | grep '\.pem$' | grep -v -e '-key\.pem$' | while read -r file; do
    printf '%s %s\n' "$file" "$(sha256_of "$state/pki/$file")"
  done | jq -Rn '[inputs | split(" ") | {(.[0]): .[1]}] | add'
}

# in_background NAME ARGUMENT...: certroll beside the scenario; its events go to NAME.events, its process is $background.
in_background() {
  local name=$1
  shift
  become_certroll "$@" >"$name.events" 2>"$name.log" &
  background=$!
}

# wait_for_event NAME KIND SECONDS: until that run has said so; fails at once where the run has ended before.
wait_for_event() {
  local deadline=$((SECONDS + patience * $3))
  until grep -q "\"kind\": *\"$2\"" "$1.events"; do
    if ((SECONDS >= deadline)) || ! kill -0 "$background" 2>/dev/null; then
      tail -n 20 "$1.events" "$1.log" >&2
      fail "no event \`$2\`"
    fi
    sleep 0.2
  done
}

# wait_for_line NAME REGEX SECONDS: until an event of that run matches; fails at once where the run has ended before.
wait_for_line() {
  local deadline=$((SECONDS + patience * $3))
  until grep -q -- "$2" "$1.events"; do
    if ((SECONDS >= deadline)) || ! kill -0 "$background" 2>/dev/null; then
      tail -n 20 "$1.events" "$1.log" >&2
      fail "no event matches \`$2\`"
    fi
    sleep 0.05
  done
}

# ended STATUS NAME: the run in the background has ended with it.
ended() {
  local status=0
  wait "$background" || status=$?
  ((status == $1)) || { tail -n 20 "$2.events" "$2.log" >&2; fail "the run ended with $status instead of $1"; }
}

# The files that hold no secret: what a run wrote here, and what it said.
holds_no_secrets() { ! grep -rIl --exclude='*.rkestate*' --exclude='kube_config*' -e 'PRIVATE KEY' "$work"; }

key_survives_everywhere() {
  local host
  for host in "${etcd_hosts[@]}"; do
    [[ $(on "$host" docker exec etcd etcdctl get --print-value-only /registry/certroll 2>/dev/null) == kept ]] || return 1
  done
}
