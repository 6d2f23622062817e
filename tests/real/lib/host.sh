# shellcheck shell=bash disable=SC2154 # names come from base.sh
# A host: a network namespace with its cable, an overlay over this machine's root, and one first process.

namespace_of() { echo "certroll-$1"; }
cable_of() { echo "cr-$1"; }

make_network() {
  ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
  ip -4 -o address show dev "$bridge" | grep -q . || ip address add "$network.1/24" dev "$bridge"
  ip link set "$bridge" up
}

plug_in() {
  local host=$1 namespace cable
  namespace=$(namespace_of "$host")
  cable=$(cable_of "$host")
  ip netns add "$namespace"
  ip link add "$cable" type veth peer name eth0 netns "$namespace"
  ip link set "$cable" master "$bridge" up
  ip -n "$namespace" address add "$(address_of "$host")/24" dev eth0
  ip -n "$namespace" link set lo up
  ip -n "$namespace" link set eth0 up
  ip -n "$namespace" route add default via "$network.1"
}

# cable in|out HOST
cable() {
  case $1 in
    in) ip link set "$(cable_of "$2")" up ;;
    out) ip link set "$(cable_of "$2")" down ;;
    *) fail "a cable is \`in\` or \`out\`, not \`$1\`" ;;
  esac
}

# The moment a process started, in clock ticks after boot: with the process id it names a process for good.
started_at() {
  local line fields
  [[ -r /proc/$1/stat ]] || return 0
  line=$(<"/proc/$1/stat")
  read -ra fields <<<"${line##*) }"
  echo "${fields[19]}"
}

# The id of the process that holds a host, while it is still the one that we started.
holder_of() {
  local pid ticks
  [[ -s $state/$1.pid ]] || return 1
  read -r pid ticks <"$state/$1.pid"
  [[ -n $ticks && $(started_at "$pid") == "$ticks" ]] && echo "$pid"
}

first_process_of() {
  local holder first
  holder=$(holder_of "$1") || return 1
  # No line end, so that `read` says no although it has read.
  read -r first _ <"/proc/$holder/task/$holder/children" || [[ -n $first ]] && echo "$first"
}

# on HOST COMMAND...: runs a command there as root, without ssh.
on() {
  local pid
  pid=$(first_process_of "$1") || { say "host $1 is off"; return 1; }
  shift
  nsenter --target "$pid" --mount --uts --ipc --net --pid --root --wd -- "$@"
}

# Not `ip netns exec`: it mounts another /sys, without the cgroups.
power_on() {
  local host=$1 pid
  mkdir -p "$state/files/$host"/{upper,work,root} "$state/docker/$host"
  nsenter --net="/var/run/netns/$(namespace_of "$host")" setsid \
    unshare --mount --pid --uts --ipc --fork --kill-child=KILL \
    "$real/inside/boot" "$host" "$(address_of "$host")" "$state" >>"$state/$host.log" 2>&1 </dev/null 9>&- &
  pid=$!
  echo "$pid $(started_at "$pid")" >"$state/$host.pid"
  wait_for 60 "docker on $host" docker_answers "$host"
}

docker_answers() { on "$1" docker version; }

# docker off|on HOST: off kills dockerd as a fault would; it comes back at `on`.
docker_daemon() {
  # shellcheck disable=SC2016 # the host's shell expands it
  case $1 in
    off) on "$2" sh -c 'touch /run/no-docker && kill -KILL "$(cat /var/run/docker.pid)"' ;;
    on)
      on "$2" rm -f /run/no-docker
      wait_for 60 "docker on $2" docker_answers "$2"
      ;;
    *) fail "docker is \`off\` or \`on\`, not \`$1\`" ;;
  esac
}

power_off() {
  local host=$1 holder first
  if holder=$(holder_of "$host"); then
    first=$(first_process_of "$host") || first=$holder
    kill -KILL "$holder"
    wait_for 30 "the end of $host" has_ended "$first"
  fi
  rm -f "$state/$host.pid"
}

# A zombie has ended too: whoever inherited it may be slow to look.
has_ended() { [[ ! -e /proc/$1 || $(sed 's/.*) //' "/proc/$1/stat") == Z* ]]; }

# What the hosts write stays in memory: a disk that is slow for a minute is none of the faults that are tried here. Docker wants
# a real file system (overlay2 lies on no tmpfs), so it gets one in a file; where there are no loop devices, the machine's own.
make_files() {
  mkdir -p "$state/files" "$state/docker"
  mountpoint -q "$state/files" || mount -t tmpfs -o mode=755 certroll-real "$state/files"
  local disk=$state/files/docker.ext4
  truncate -s 8G "$disk"
  mkfs.ext4 -q -m 0 -O ^has_journal "$disk" && mount -o loop "$disk" "$state/docker" && return
  rm -f "$disk"
  say "docker's files lie on this machine's disk: no loop device can be mounted"
}

make_keys() {
  local host keys=$state/ssh
  mkdir -p "$keys"
  chmod 700 "$keys"
  ssh-keygen -q -t ed25519 -N '' -C operator -f "$keys/id_ed25519"
  ssh-keygen -q -t rsa -b 2048 -N '' -C operator-rsa -f "$keys/id_rsa"
  cat "$keys"/id_*.pub >"$keys/authorized_keys"
  for host in "${all_hosts[@]}"; do
    ssh-keygen -q -t ed25519 -N '' -C "$host" -f "$keys/host_$host"
    echo "$(address_of "$host") $(cut -d' ' -f1,2 "$keys/host_$host.pub")" >>"$keys/known_hosts"
  done
}

# Held while hosts are made or taken away, and by a run of the suite for as long as it lasts.
lock_hosts() {
  mkdir -p "$state"
  exec 9>"$state/lock"
  flock --nonblock 9 || fail "another run of the real hosts is under way (\`$state/lock\` is held)"
}

# Makes the hosts and switches them on.
make_hosts() {
  remove_hosts
  mkdir -p "$state"
  make_keys
  make_network
  make_files
  local host
  for host in "${all_hosts[@]}"; do plug_in "$host"; done
  make_images
  on_each start_host "${all_hosts[@]}"
}

start_host() {
  power_on "$1"
  import_images "$1"
}

# Takes away whatever is there of the hosts, also what a killed run left. Never touches a process that is not ours.
remove_hosts() {
  local host link
  on_each power_off "${all_hosts[@]}"
  for host in "${all_hosts[@]}"; do
    link=$(cable_of "$host")
    ! ip link show "$link" >/dev/null 2>&1 || ip link delete "$link"
    ! ip netns list | grep -qw "$(namespace_of "$host")" || ip netns delete "$(namespace_of "$host")"
  done
  ! ip link show "$bridge" >/dev/null 2>&1 || ip link delete "$bridge"
  ! mountpoint -q "$state/docker" || umount "$state/docker" || umount -l "$state/docker"
  ! mountpoint -q "$state/files" || umount "$state/files" || umount -l "$state/files"
  find /sys/fs/cgroup -depth -type d -path '*/certroll-real*' -exec rmdir {} + 2>/dev/null || true
  rm -rf "${state:?}"/{files,docker,images,ssh,pki,work,layout,validity,cluster.rkestate} "$state"/n?.log
}
