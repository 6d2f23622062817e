# Says something.
say() { printf '%s\n' "$*"; }

# Ends the runbook with a message.
stop() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints a text as one word of a shell.
quoted() { printf "'%s'" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")"; }

# Runs a script over ssh: the words that become root there, the script, then what ssh is told.
as_root() {
  become=$1
  remote="RUN=$(quoted "$RUN"); export RUN
$2"
  shift 2
  # shellcheck disable=SC2029,SC2086 # The script is put together here on purpose; SSH_OPTIONS is a list of words.
  ssh $SSH_OPTIONS ${SSH_CONFIG:+-F "$SSH_CONFIG"} "$@" "$become$(quoted "$remote")"
}

# Runs the script of a here-document on a node.
run() {
  script=$(cat)
  on "$1" "$script" </dev/null
}

# Runs the script of descriptor 3 on a node; its input and output are those of this pipe.
pass() {
  script=$(cat <&3)
  on "$1" "$script" 3<&-
}

# Asks before a stage; returns 1 if it is to be skipped. YES=1 answers yes.
ask() {
  say ""
  say "== $1"
  [ "$YES" != 1 ] || return 0
  printf 'Go on? yes, skip this stage, or no [y/s/N] '
  read -r answer || stop "there is no answer; YES=1 asks nothing"
  case $answer in
  y | Y | yes) return 0 ;;
  s | S | skip) return 1 ;;
  *) stop "answered no" ;;
  esac
}

# Waits for the operator; YES=1 is no answer to this.
press_enter() {
  printf 'Press Enter when it is done: '
  read -r answer || stop "there is nobody who could press Enter"
}

# Prints who holds the lock, as certroll writes it.
holder() {
  owner=$(printf '%s@%s' "$(id -un)" "$(uname -n)" | tr -cd 'A-Za-z0-9@._-')
  printf '{"run":"%s","owner":"%s","pid":%s,"since":"%s"}' "$RUN" "$owner" "$$" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
}

# Takes the lock of certroll on a node: a file that must not be there.
take_lock() {
  # It is named first: if the connection breaks, the file may be there all the same.
  LOCKED="$LOCKED $1"
  on "$1" "directory=$(quoted "$(directory_of "$1")") holder=$(quoted "$HOLDER")
$(lock_script)" </dev/null || stop "$1: the lock could not be taken"
}

# Prints the script that takes the lock.
lock_script() {
  cat <<'END'
set -eu
umask 077
mkdir -p "$directory/.certroll"
chmod 700 "$directory/.certroll"
lock=$directory/.certroll/lock
if ! (set -C; printf '%s\n' "$holder" >"$lock") 2>/dev/null; then
  echo "$lock is held: $(cat "$lock" 2>/dev/null)" >&2
  exit 1
fi
END
}

# Gives the locks back, whatever happened.
finish() {
  status=$?
  trap - EXIT
  for locked in $LOCKED; do
    on "$locked" "lock=$(quoted "$(directory_of "$locked")/.certroll/lock") holder=$(quoted "$HOLDER")
$(unlock_script)" </dev/null ||
      say "$locked: the lock could not be given back; remove $(directory_of "$locked")/.certroll/lock by hand"
  done
  if [ "$status" = 0 ]; then
    say "The runbook has ended."
  else
    say "Stopped with status $status; what was done before stays done."
  fi
  exit "$status"
}

# Prints the script that gives the lock back, if it is ours.
unlock_script() {
  cat <<'END'
if [ -e "$lock" ] && grep -qxF "$holder" "$lock"; then rm -f "$lock"; fi
END
}

# Checks that a node has the folder of certificates and that its docker answers.
preflight() {
  on "$1" "test -d $(quoted "$(directory_of "$1")/ssl") && docker ps -q >/dev/null" </dev/null ||
    stop "$1: there is no $(directory_of "$1")/ssl, or docker does not answer"
}

# Prints the SHA-256 of the first certificate of a file on a node, which is public; fails where there is none.
sha256_of() {
  body=$(on "$1" "cat $(quoted "$2")" </dev/null |
    sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' | sed '/-----END/q' | sed '/-----/d')
  [ -n "$body" ] || return 1
  printf '%s\n' "$body" | base64 -d | sha256sum | cut -c1-64
}

# Checks that a node has the CA that the plan was made for.
same_authority() {
  found=$(sha256_of "$1" "$(directory_of "$1")/ssl/kube-ca.pem") || stop "$1: kube-ca.pem cannot be read"
  [ "$found" = "$2" ] || stop "$1: kube-ca.pem is another one than the plan's: make a new plan"
}

# Checks that two certificates are the same: node and file, node and file.
same_certificate() {
  here=$(sha256_of "$1" "$2") || stop "$1: $2 cannot be read"
  there=$(sha256_of "$3" "$4") || stop "$3: $4 cannot be read"
  [ "$here" = "$there" ] || stop "$3: $4 is not the same as $2 of $1"
}

# Sets the time until which the next lines wait, in seconds from now.
deadline() { DEADLINE=$(($(date +%s) + $1)); }

# Returns whether that time has come.
is_over() { [ "$(date +%s)" -ge "$DEADLINE" ]; }

# Waits until a certificate of a node has changed: the node, its name, the SHA-256 that it had.
changed() {
  while :; do
    found=$(sha256_of "$1" "$(directory_of "$1")/ssl/$2.pem") || found=
    if [ -n "$found" ] && [ "$found" != "$3" ]; then
      say "   $1: $2 is new"
      return 0
    fi
    ! is_over || stop "$1: $2 is still the old certificate, or cannot be read"
    sleep 5
  done
}

# Returns whether a container needs a restart, after giving the node's own agent until the deadline: the node, the container, its certificate.
needs_restart() {
  while :; do
    answer=$(on "$1" "container=$(quoted "$2") stem=$(quoted "$(directory_of "$1")/ssl/$3")
$(needs_restart_script)" </dev/null) || stop "$1: there is no telling whether $2 needs a restart"
    reason=$(printf '%s\n' "$answer" | sed -n 's/^needs a restart: //p')
    if [ -z "$reason" ]; then
      say "   $1: $2 needs no restart"
      return 1
    fi
    ! is_over || break
    sleep 10
  done
  say "   $1: $2 is restarted: $reason"
}

# Prints the script that compares the start of a container with the time at which its certificate and key were written.
# The times are compared as numbers of 14 digits, to the second: whoever started in that second is restarted once more.
needs_restart_script() {
  cat <<'END'
set -eu
state=$(docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' "$container")
if [ "${state%% *}" != true ]; then
  echo "needs a restart: it does not run"
  exit 0
fi
started=$(printf '%s' "${state#* }" | tr -cd 0-9 | cut -c1-14)
for file in "$stem.pem" "$stem-key.pem"; do
  [ -e "$file" ] || continue
  written=$(date -u -r "$file" +%Y%m%d%H%M%S)
  if [ "$written" -ge "$started" ]; then
    echo "needs a restart: it started before $file was written"
    exit 0
  fi
done
END
}

# Waits until a container has run for 10 s without another start. Nodes have no curl, so nobody asks it for its health.
settled() {
  on "$1" "container=$(quoted "$2")
$(settled_script)" </dev/null || stop "$1: $2 does not keep running; look at its log with: docker logs --tail 50 $2"
  say "   $1: $2 runs"
}

# Prints the script that waits for a container, for 120 s.
settled_script() {
  cat <<'END'
set -eu
tries=0
while [ "$tries" -lt 12 ]; do
  before=$(docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' "$container")
  sleep 10
  after=$(docker inspect -f '{{.State.Running}} {{.State.StartedAt}}' "$container")
  if [ "${after%% *}" = true ] && [ "$before" = "$after" ]; then exit 0; fi
  tries=$((tries + 1))
done
exit 1
END
}

# Waits until the member of etcd on a node is healthy, for 120 s or so.
etcd_healthy() {
  on "$1" "$(etcd_healthy_script)" </dev/null || stop "$1: etcd is not healthy; look at its log with: docker logs --tail 50 etcd"
  say "   $1: etcd is healthy"
}

# Prints the script that asks etcd for its health; its container knows address and certificates.
etcd_healthy_script() {
  cat <<'END'
tries=0
while [ "$tries" -lt 24 ]; do
  if docker exec -e ETCDCTL_API=3 etcd etcdctl --dial-timeout=2s --command-timeout=3s endpoint health >/dev/null 2>&1; then exit 0; fi
  sleep 5
  tries=$((tries + 1))
done
exit 1
END
}

# Returns whether all of some files are on a node.
present() {
  place=$1
  shift
  tests=true
  for file in "$@"; do tests="$tests && test -e $(quoted "$file")"; done
  verdict=$(on "$place" "if $tests; then echo all-present; else echo some-missing; fi" </dev/null) ||
    stop "$place: cannot be looked at"
  case $verdict in
  *all-present*) say "   $place: the files are there already" ;;
  *) return 1 ;;
  esac
}

# Asks Rancher. The token travels over the standard input of curl, and is on no command line.
rancher() {
  printf 'header = "Authorization: Bearer %s"\n' "$RANCHER_TOKEN" |
    curl -sS --fail --max-time 30 -K - ${RANCHER_CA:+--cacert "$RANCHER_CA"} -H 'Content-Type: application/json' "$@"
}

# Has Rancher rotate, and waits until it is done with it: its address, the cluster, what is asked for, seconds.
rotate_by_rancher() {
  if [ -z "${RANCHER_TOKEN:-}" ]; then
    say "RANCHER_TOKEN is not set. Rotate by hand: $1, cluster $2, its menu, Rotate Certificates; or, in its API view,"
    say "the action rotateCertificates with $3. Then wait until Rancher calls the cluster active."
    press_enter
    return 0
  fi
  case $RANCHER_TOKEN in
  *[!A-Za-z0-9:._-]*) stop "RANCHER_TOKEN holds characters that no token has" ;;
  esac
  case $1 in
  https://*) ;;
  *) stop "the token is sent over https alone, not to $1" ;;
  esac
  rancher -X POST --data "$3" "$1/v3/clusters/$2?action=rotateCertificates" >/dev/null || stop "Rancher refused"
  deadline "$4"
  while :; do
    sleep 10
    # The wish stays in the cluster until it is fulfilled; an answer that fails is asked for again.
    state=$(rancher "$1/v3/clusters/$2" | tr -d ' \n') || state=
    case $state in
    '' | *'"rotateCertificates":{'*) ;;
    *'"state":"active"'*) return 0 ;;
    esac
    ! is_over || stop "Rancher is not done after $4 s; look at the cluster in its UI"
    say "   Rancher is at it"
  done
}
