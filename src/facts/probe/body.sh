# Looks at this node as root and changes nothing. POSIX sh, stat, cat, date, df and docker are all it needs.
frame() { printf '\n%s %s\n' "$M" "$*"; }

# A docker that hangs is told from a node that hangs, where there is a `timeout` (busybox before 1.30 wants its limit elsewhere).
limit=
timeout 1 true 2>/dev/null && limit="timeout $T"
engine() { $limit docker "$@"; }

# Whether a status says that the time was over: 124, or where timeout is busybox's that of the signal.
late() { [ "$1" = 124 ] || [ "$1" = 143 ]; }

# What docker said when it failed, or that it said nothing in time.
docker_error() {
  frame docker-error
  if late "$1"; then printf '%s does not answer within %s s\n' "$2" "$T"; else printf '%s\n' "$3"; fi
}

# The first lines of a key hold version, modulus and exponent: of a PKCS#1 RSA key of 2048 bits (`MIIE`) exactly the first
# 364 characters; a longer one (`MIIG`, `MIIJ`) begins with a longer modulus. Any other key shows its first line alone.
public_prefix() {
  {
    IFS= read -r head
    IFS= read -r a
    IFS= read -r b
    IFS= read -r c
    IFS= read -r d
    IFS= read -r e
    IFS= read -r g
  } <"$1"
  case $head in
  '-----BEGIN '*) [ "${#head}" -le 40 ] || return 0 ;;
  *) return 0 ;;
  esac
  printf '%s\n' "$head"
  case $a in 'Proc-Type:'*) printf 'Proc-Type:\n' ;; esac
  [ "$head" = '-----BEGIN RSA PRIVATE KEY-----' ] || return 0
  for line in "$a" "$b" "$c" "$d" "$e" "$g"; do
    [ "${#line}" -eq 64 ] || return 0
  done
  case $a in
  MII[E-Z]*) printf '%s\n%s\n%s\n%s\n%s\n%s\n' "$a" "$b" "$c" "$d" "$e" "${g%????????????????????}" ;;
  esac
}

# The certificates of a file and nothing else: somebody may have put a key beside them.
certificates() {
  inside=no
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in *'BEGIN CERTIFICATE'*) inside=yes ;; esac
    [ "$inside" = no ] || printf '%s\n' "$line"
    case $line in *'END CERTIFICATE'*) inside=no ;; esac
  done <"$1"
}

show() {
  [ -f "$2" ] || return 0
  # What certroll had not yet renamed into place when the power went; nothing uses it, and the next script removes it.
  case $2 in *.certroll) return 0 ;; esac
  # Seconds, then the same with its fraction where stat tells it: `2026-11-21 19:15:25.188094417 +0000`.
  frame file "$1" "$(stat -L -c '%a %u %g %s %Y %y' "$2")" "$2"
  case $2 in
  *-key.pem | *.key) if [ "$W" = yes ]; then cat "$2"; else public_prefix "$2"; fi ;;
  *.pem | *.crt) certificates "$2" ;;
  esac
}

# What is left of a file system, in KiB (-k) or files (-i): the fourth word of the second line.
available() {
  df -P "$1" "$2" 2>/dev/null | {
    read -r skip
    read -r device size used available rest
    echo "${available:--}"
  }
}

frame clock "$(date +%s)"

names=$(engine ps -a --no-trunc --format '{{.ID}} {{.Names}}' 2>&1)
answered=$?
[ "$answered" = 0 ] || limit=false

directory=
for name in kubelet kube-proxy kube-apiserver etcd; do
  directory=$(engine inspect --format '{{range .Mounts}}{{if eq .Destination "/etc/kubernetes"}}{{.Source}}{{end}}{{end}}' "$name" 2>/dev/null)
  status=$?
  if [ -n "$directory" ] || late "$status"; then break; fi
done
if [ -z "$directory" ]; then
  for candidate in "$P/etc/kubernetes" /etc/kubernetes /opt/rke/etc/kubernetes /mnt/sda1/rke/etc/kubernetes; do
    if [ -d "$candidate/ssl" ] || [ -d "$candidate/.tmp" ]; then
      directory=$candidate
      break
    fi
  done
fi
frame directory "$directory"

if [ -n "$directory" ]; then
  [ -d "$directory/.tmp" ] && frame tmp
  for path in "$directory"/ssl/*; do show ssl "$path"; done
  for path in "$directory"/.tmp/*; do show tmp "$path"; done
  for path in "$directory"/.tmp/ssl/*; do show nested "$path"; done
  prefix=${directory%/etc/kubernetes}
  show kubelet "$prefix/var/lib/kubelet/pki/kubelet.crt"
  show kubelet "$prefix/var/lib/kubelet/pki/kubelet.key"
  if [ -f "$directory/.certroll/lock" ]; then
    # The node's time, and when the lease was renewed.
    frame lock "$(date +%s) $(stat -L -c %Y "$directory/.certroll/lock")"
    cat "$directory/.certroll/lock"
  fi
  if [ -w "$directory" ]; then frame writable yes; else frame writable no; fi
  for path in "$directory"/.certroll/*/staged; do
    [ ! -d "$path" ] || frame staged "${path%/staged}"
  done
  for path in "$directory"/.certroll/*/backup.tar; do
    [ ! -f "$path" ] || frame backup "$(stat -L -c %s "$path")" "$path"
  done
  frame free "$(available -k "$directory")"
  frame inodes "$(available -i "$directory")"
  # They may be mounts of their own.
  for path in "$directory/ssl" "$directory/.tmp"; do
    if [ -d "$path" ]; then
      if [ -w "$path" ]; then may=yes; else may=no; fi
      frame folder "$may" "$(available -k "$path")" "$(available -i "$path")" "$path"
    fi
  done
  if [ "$(cat /sys/fs/selinux/enforce 2>/dev/null)" = 1 ]; then
    # What the folders are labelled with, and a file that is in use.
    frame selinux
    stat -L -c '%C %n' "$directory" "$directory/ssl" "$directory/ssl/kube-ca.pem" 2>/dev/null
  fi
  frame used "$(du -sk "$directory" 2>/dev/null | { read -r size rest; echo "$size"; })"
fi

if [ "$answered" = 0 ]; then
  ids=$(printf '%s\n' "$names" | while read -r id name; do
    case $name in
    etcd | kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kube-proxy | nginx-proxy | service-sidekick | \
      share-mnt | cert-deployer | cert-fetcher | file-deployer | cluster-state-deployer | etcd-fix-perm | etcd-restore | kube-cleaner | \
      rke-bundle-cert | etcd-rolling-snapshots | k8s_agent_cattle-node-agent*) echo "$id" ;;
    esac
  done)
  if [ -n "$ids" ]; then
    frame containers
    # Named fields alone: rke's deployers carry private keys in their environment.
    # shellcheck disable=SC2086
    engine inspect --format '{{json .Name}}	{{json .Config.Image}}	{{json .State}}	{{.RestartCount}}' $ids 2>/dev/null
    # One that was removed meanwhile is no error.
    status=$?
    ! late "$status" || docker_error "$status" 'docker inspect'
  fi
  arguments=$(engine inspect --format '{{range .Args}}{{println .}}{{end}}' kube-apiserver 2>/dev/null)
  status=$?
  ! late "$status" || docker_error "$status" 'docker inspect'
  printf '%s\n' "$arguments" | while IFS= read -r argument; do
    case $argument in
    --service-account-key-file=*) frame service-account-key-file "${argument#*=}" ;;
    esac
  done
  agent=$(engine ps -a --format '{{.Names}}' | while read -r name; do
    case $name in k8s_agent_cattle-node-agent*) echo "$name" && break ;; esac
  done)
  if [ -n "$agent" ]; then
    frame agent-log
    # Never the lines that name its token.
    engine logs --tail 200 "$agent" 2>&1 | grep -E 'Connecting to proxy|Failed to connect to proxy|Remotedialer proxy error|Starting plan monitor|is not accessible|does not match given --ca-checksum' | tail -n 1
    # Its environment holds the token, too: docker itself picks the one variable, and of a proxy it says only that there is one.
    engine inspect --format '{{range .Config.Env}}{{if eq (index (split . "=") 0) "CATTLE_SERVER"}}{{println .}}{{end}}{{if eq (index (split . "=") 0) "HTTPS_PROXY" "https_proxy"}}{{if index (split . "=") 1}}{{println "proxy"}}{{end}}{{end}}{{end}}' "$agent" 2>/dev/null | while IFS= read -r line; do
      case $line in
      CATTLE_SERVER=*) frame agent-server "${line#*=}" ;;
      proxy) frame agent-proxy ;;
      esac
    done
  fi
  newline='
'
  case $names$newline in
  *" etcd$newline"*)
    # RKE before 0.3 names the endpoint in a variable that etcdctl 3 does not read (rancher/rke#1312).
    answer=$(engine exec -e ETCDCTL_API=3 -e "ETCDCTL_ENDPOINTS=$E" etcd etcdctl --dial-timeout=2s --command-timeout=3s endpoint health 2>&1)
    status=$?
    ! late "$status" || answer="docker exec does not answer within $T s"
    frame etcd "$status"
    printf '%s\n' "$answer"
    ;;
  esac
else
  docker_error "$answered" docker "$names"
fi
frame end
