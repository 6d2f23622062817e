# Looks at this node as root and changes nothing. POSIX sh, stat, head, cat, date, du and docker are all it needs.
#
# What takes time here are processes, and a shell that reads byte by byte: a program is asked once for all files or containers,
# and the shell splits what it says, at the ends of lines alone.
newline='
'
IFS=$newline
set -f
frame() { printf '\n%s %s\n' "$M" "$1"; }

# A docker that hangs is told from a node that hangs, where `timeout` takes its limit so: it misses the command then, while busybox
# before 1.30 takes the limit for one, and finds none.
limit=
timeout "$T" >/dev/null 2>&1
[ "$?" = 127 ] || limit=timeout$newline$T

# Whether a status says that the time was over: 124, or where timeout is busybox's that of the signal.
late() { [ "$1" = 124 ] || [ "$1" = 143 ]; }

# What docker said when it failed, or that it said nothing in time.
docker_error() {
  frame docker-error
  if late "$1"; then printf '%s does not answer within %s s\n' "$2" "$T"; else printf '%s\n' "$3"; fi
}

# public_prefix PATH LINE...: what is public of a key whose first lines these are, without empty ones.
#
# They hold version, modulus and exponent: of a PKCS#1 RSA key of 2048 bits (`MIIE`) exactly the first 364 characters; a longer one
# (`MIIG`, `MIIJ`) begins with a longer modulus. Any other key shows its first line alone.
public_prefix() {
  case $2 in
  '-----BEGIN '*) [ "${#2}" -le 40 ] || return 0 ;;
  *) return 0 ;;
  esac
  shown="content $1$newline$2"
  case $3 in 'Proc-Type:'*) shown="$shown${newline}Proc-Type:" ;; esac
  if [ "$2" = '-----BEGIN RSA PRIVATE KEY-----' ] && [ "$#" = 8 ]; then
    case ${#3},${#4},${#5},${#6},${#7},${#8},$3 in
    64,64,64,64,64,64,MII[E-Z]*)
      shown="$shown$newline$3$newline$4$newline$5$newline$6$newline$7$newline${8%????????????????????}"
      ;;
    esac
  fi
  frame "$shown"
}

# The public prefixes of the keys among some files. `head` names each file, for there are at least two.
public_prefixes() {
  for path; do
    shift
    case $path in *-key.pem | *.key) set -- "$@" "$path" ;; esac
  done
  [ "$#" != 0 ] || return 0
  lines=$(head -n 7 "$@" /dev/null 2>/dev/null)
  set --
  for line in $lines; do
    case $line in
    '==> /'*' <==')
      [ "$#" = 0 ] || public_prefix "$@"
      line=${line#'==> '}
      set -- "${line%' <=='}"
      ;;
    *) set -- "$@" "$line" ;;
    esac
  done
}

# The same keys as a whole.
whole_keys() {
  for path; do
    case $path in *-key.pem | *.key) frame "content $path" && cat "$path" ;; esac
  done
}

# The certificates of the files that are to hold some, and nothing else of them: somebody may have put a key beside them.
certificates() {
  for path; do
    shift
    case $path in
    *-key.pem) ;;
    *.pem | *.crt) set -- "$@" "$path" ;;
    esac
  done
  [ "$#" != 0 ] || return 0
  inside=no shown=
  for line in $(head -n 99999 "$@" /dev/null 2>/dev/null); do
    case $line in
    '==> /'*' <==')
      [ -z "$shown" ] || printf '%s\n' "$shown"
      line=${line#'==> '}
      inside=no shown=$newline"$M content ${line%' <=='}"
      ;;
    *'BEGIN CERTIFICATE'*) inside=yes shown=$shown$newline$line ;;
    # A certificate that was cut off ends where a key begins.
    *'-----BEGIN '*) inside=no ;;
    *'END CERTIFICATE'*)
      [ "$inside" = no ] || printf '%s\n' "$shown$newline$line"
      inside=no shown=
      ;;
    *) [ "$inside" = no ] || shown=$shown$newline$line ;;
    esac
  done
}

# What there is to tell of some files.
show() {
  for path; do
    shift
    # What certroll had not yet renamed into place when the power went; nothing uses it, and the next script removes it.
    case $path in *.certroll) continue ;; esac
    [ ! -f "$path" ] || set -- "$@" "$path"
  done
  [ "$#" != 0 ] || return 0
  frame files
  # Seconds, then the same with its fraction where stat tells it: `2026-11-21 19:15:25.188094417 +0000`.
  stat -L -c '%a %u %g %s %Y %y %n' "$@" 2>/dev/null
  certificates "$@"
  if [ "$W" = yes ]; then whole_keys "$@"; else public_prefixes "$@"; fi
}

frame "clock $(date +%s)"

# shellcheck disable=SC2086
names=$($limit docker ps -a --no-trunc --format '{{.ID}} {{.Names}}' 2>&1)
answered=$?
ids='' agent='' member=no containers=
if [ "$answered" != 0 ]; then
  docker_error "$answered" docker "$names"
  names=
fi
for line in $names; do
  name=${line#* }
  case $name in
  etcd) member=yes ;;
  k8s_agent_cattle-node-agent*) [ -n "$agent" ] || agent=$name ;;
  kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy | nginx-proxy | service-sidekick | share-mnt | \
    cert-deployer | cert-fetcher | file-deployer | cluster-state-deployer | etcd-fix-perm | etcd-restore | kube-cleaner | \
    rke-bundle-cert | etcd-rolling-snapshots) ;;
  *) continue ;;
  esac
  ids=$ids$newline${line%% *}
done
if [ -n "$ids" ]; then
  # Named fields alone: rke's deployers carry private keys in their environment, Rancher's agent its token, and of a proxy it is only
  # said that there is one. What a container may choose is JSON, and so on one line.
  # shellcheck disable=SC2086
  containers=$($limit docker inspect --format '{{json .Name}}	{{json .Config.Image}}	{"Status":{{json .State.Status}},"StartedAt":{{json .State.StartedAt}}}	{{.RestartCount}}{{if eq .Name "/kubelet" "/kube-proxy" "/kube-apiserver" "/etcd"}}{{range .Mounts}}{{if eq .Destination "/etc/kubernetes"}}
mount {{$.Name}} {{.Source}}{{end}}{{end}}{{end}}{{range .Args}}{{if eq (index (split . "=") 0) "--service-account-key-file"}}
argument {{$.Name}} {{json .}}{{end}}{{end}}{{range .Config.Env}}{{if eq (index (split . "=") 0) "CATTLE_SERVER"}}
variable {{$.Name}} {{json .}}{{end}}{{if eq (index (split . "=") 0) "HTTPS_PROXY" "https_proxy"}}{{if eq . "HTTPS_PROXY" "HTTPS_PROXY=" "https_proxy" "https_proxy="}}{{else}}
proxy {{$.Name}}{{end}}{{end}}{{end}}' $ids 2>/dev/null)
  # One that was removed meanwhile is no error.
  status=$?
  ! late "$status" || docker_error "$status" 'docker inspect'
  frame containers
  printf '%s\n' "$containers"
fi

directory=
for name in kubelet kube-proxy kube-apiserver etcd; do
  for line in $containers; do
    case $line in
    "mount /$name "*)
      directory=${line#"mount /$name "}
      break 2
      ;;
    esac
  done
done
if [ -z "$directory" ]; then
  for candidate in "$P/etc/kubernetes" /etc/kubernetes /opt/rke/etc/kubernetes /mnt/sda1/rke/etc/kubernetes; do
    if [ -d "$candidate/ssl" ] || [ -d "$candidate/.tmp" ]; then
      directory=$candidate
      break
    fi
  done
fi
frame "directory $directory"

if [ -n "$directory" ]; then
  pki=${directory%/etc/kubernetes}/var/lib/kubelet/pki
  [ ! -d "$directory/.tmp" ] || frame tmp
  set +f
  set -- "$directory"/ssl/* "$directory"/.tmp/* "$directory"/.tmp/ssl/* "$pki/kubelet.crt" "$pki/kubelet.key"
  set -f
  show "$@"
  if [ -f "$directory/.certroll/lock" ]; then
    # The node's time, and when the lease was renewed.
    frame "lock $(date +%s) $(stat -L -c %Y "$directory/.certroll/lock")"
    cat "$directory/.certroll/lock"
  fi
  if [ -w "$directory" ]; then frame 'writable yes'; else frame 'writable no'; fi
  set +f
  for path in "$directory"/.certroll/*/staged; do
    [ ! -d "$path" ] || frame "staged ${path%/staged}"
  done
  set -- "$directory"/.certroll/*/backup.tar
  set -f
  if [ -f "$1" ]; then
    frame backups
    stat -L -c '%s %n' "$@" 2>/dev/null
  fi
  # `ssl` and `.tmp` may be mounts of their own.
  set -- "$directory"
  for path in "$directory/ssl" "$directory/.tmp"; do
    [ -d "$path" ] || continue
    set -- "$@" "$path"
    if [ -w "$path" ]; then frame "folder yes $path"; else frame "folder no $path"; fi
  done
  # What is left there: blocks and their size, all inodes (none where they are not counted) and the free ones.
  frame space
  stat -f -c '%a %S %c %d %n' "$@" 2>/dev/null
  enforcing=
  [ ! -f /sys/fs/selinux/enforce ] || read -r enforcing </sys/fs/selinux/enforce
  if [ "$enforcing" = 1 ]; then
    # What the folders are labelled with, and a file that is in use.
    frame selinux
    stat -L -c '%C %n' "$directory" "$directory/ssl" "$directory/ssl/kube-ca.pem" 2>/dev/null
  fi
  frame used
  du -sk "$directory" 2>/dev/null
fi

if [ -n "$agent" ]; then
  frame agent-log
  # Never the lines that name its token.
  # shellcheck disable=SC2086
  $limit docker logs --tail 200 "$agent" 2>&1 | grep -E 'Connecting to proxy|Failed to connect to proxy|Remotedialer proxy error|Starting plan monitor|is not accessible|does not match given --ca-checksum' | tail -n 1
fi
if [ "$member" = yes ]; then
  # RKE before 0.3 names the endpoint in a variable that etcdctl 3 does not read (rancher/rke#1312).
  # shellcheck disable=SC2086
  answer=$($limit docker exec -e ETCDCTL_API=3 -e "ETCDCTL_ENDPOINTS=$E" etcd etcdctl --dial-timeout=2s --command-timeout=3s endpoint health 2>&1)
  status=$?
  ! late "$status" || answer="docker exec does not answer within $T s"
  frame "etcd $status"
  printf '%s\n' "$answer"
fi
frame end
