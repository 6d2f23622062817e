# shellcheck shell=bash disable=SC2154 # names come from base.sh
# What the hosts need from this machine. Prints the reason and fails where it is not there.

packages=(
  docker.io openssh-server openssh-client openssl iproute2 etcd-server etcd-client iptables
  busybox-static sudo jq acl curl python3 libcap2-bin e2fsprogs
)

# A package's own start script must not start a daemon on this machine.
install_packages() {
  local missing=() package policy=/usr/sbin/policy-rc.d made='' result=0
  for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
  fi
  {
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
  } >"$state/apt.log" 2>&1 || result=1
  [[ -z $made ]] || rm -f "$policy"
  return "$result"
}

# Prints why real hosts cannot be made here; prints nothing where they can.
why_not() {
  [[ $(uname -s) == Linux ]] || { echo "not Linux"; return; }
  ((EUID == 0)) || { echo "not root"; return; }
  command -v apt-get >/dev/null || { echo "no apt-get: the packages are Debian's"; return; }
  unshare --mount --pid --uts --ipc --net --fork true 2>/dev/null || { echo "no namespaces (CAP_SYS_ADMIN is missing)"; return; }
  mkdir -p "$state" || { echo "\`$state\` cannot be made"; return; }
  case $(stat -f -c %T "$state") in
    overlayfs | tmpfs | ramfs | aufs)
      echo "\`$state\` is not on a real file system, which overlay2 needs (set CERTROLL_REAL_DIR)"
      return
      ;;
  esac
  install_packages || { echo "packages cannot be installed (see $state/apt.log)"; return; }
  if ip -4 -o address show to "$network.1/24" | grep -qvw "$bridge"; then
    echo "the network $network.0/24 is in use on this machine"
  fi
}
