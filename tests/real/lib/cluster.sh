# shellcheck shell=bash disable=SC2154 # names come from base.sh
# The cluster on the hosts: its certificates as RKE lays them out, its expiry, its rotation, its health.

# The file names (without folder) that a node of a role has in ssl/.
files_for() {
  printf '%s\n' kube-ca.pem kube-node.pem kube-node-key.pem kube-proxy.pem kube-proxy-key.pem \
    kubecfg-kube-node.yaml kubecfg-kube-proxy.yaml
  ! is_etcd "$1" || find "$state/pki" -maxdepth 1 -type f -name 'kube-etcd-*' -printf '%f\n'
  ! is_control_plane "$1" || find "$state/pki" -maxdepth 1 -type f ! -name '*kube-admin*' ! -name 'kube-etcd-*' \
    ! -name 'kube-ca.pem' ! -name '*kube-node*' ! -name '*kube-proxy*' -printf '%f\n'
}

# put_files HOST FOLDER <names of files of the pki: owned by root, 0600, in a folder of 0700.
put_files() {
  on "$1" install -d -m 755 "$kubernetes"
  on "$1" install -d -m 700 "$2"
  tar -C "$state/pki" --owner=0 --group=0 --mode=600 -cf - -T - | on "$1" tar -C "$2" -xmf -
}

put_certificates() {
  files_for "$1" | put_files "$1" "$kubernetes/ssl"
  # With `uid` and `gid` for etcd RKE's deployer gives it its files; etcd must reach them.
  # shellcheck disable=SC2016 # the host's shell expands these
  ((etcd_owner == 0)) || on "$1" sh -c 'cd "$1/ssl" && chmod 755 . && chmod 644 kube-ca.pem &&
    find . -name "kube-etcd-*" -exec chown "$2:$2" {} +' sh "$kubernetes" "$etcd_owner"
}

# The bundle that rke v0.1.x left on etcd and controlplane nodes, as clusters from before v0.1.9 have it:
# without the files of the requestheader CA and its client.
put_legacy_bundle() {
  find "$state/pki" -maxdepth 1 -type f ! -name '*requestheader*' ! -name '*proxy-client*' -printf '%f\n' |
    put_files "$1" "$kubernetes/.tmp"
}

lay_out_node() {
  local host=$1 layout
  layout=$(<"$state/layout")
  remove_containers "$host"
  on "$host" rm -rf /etc/kubernetes /var/lib/etcd /var/lib/kubelet /opt/rke
  put_certificates "$host"
  if [[ $layout == v0.1.17-legacy ]] && is_control_plane "$host"; then put_legacy_bundle "$host"; fi
  start_containers "$host" "$layout"
}

# lay_out LAYOUT: a new, healthy cluster.
lay_out() {
  local until='now +3250 days'
  rm -rf "$state/pki"
  echo "$1" >"$state/layout"
  use_layout "$1"
  [[ $1 != v0.1.17-legacy ]] || until='now +300 days'
  "$real/pki" authorities "$state/pki" 'now -400 days' 'now +3250 days'
  "$real/pki" leaves "$state/pki" "$1" "$until"
  "$real/pki" administrator "$state/pki" "$until"
  on_each lay_out_node "${all_hosts[@]}"
  wait_for 60 'a healthy cluster' cluster_is_healthy
  # Something to lose: every member must still have it after whatever happens.
  printf kept | put_key /registry/certroll
  put_state
}

expire_node() {
  put_certificates "$1"
  if on "$1" test -d "$kubernetes/.tmp"; then put_legacy_bundle "$1"; fi
  restart_all "$1"
}

# Every leaf has expired ten days ago; the keys stay. Nothing works afterwards, as in a real cluster.
expire() {
  "$real/pki" reissue "$state/pki" "$(<"$state/layout")" 'now -10 days'
  "$real/pki" administrator "$state/pki" 'now -10 days'
  put_state
  on_each expire_node "${all_hosts[@]}"
}

restart_all() {
  local containers=(kubelet kube-proxy)
  ! is_control_plane "$1" || containers=(kube-apiserver kube-controller-manager kube-scheduler "${containers[@]}")
  ! is_etcd "$1" || containers=(etcd "${containers[@]}")
  restart_containers "$1" "${containers[@]}"
}

running() { [[ $(on "$1" docker inspect --format '{{.State.Running}}' "$2" 2>/dev/null) == true ]]; }

etcd_is_healthy() { on "$1" docker exec etcd etcdctl endpoint health >/dev/null 2>&1; }

component_is_healthy() { [[ $(on "$1" curl --silent --max-time 5 "http://127.0.0.1:$2/healthz") == ok ]]; }

api_server_answers() {
  local status
  status=$(on "$1" curl --silent --insecure --max-time 5 --output /dev/null --write-out '%{http_code}' \
    https://127.0.0.1:6443/healthz)
  [[ $status == 401 ]]
}

node_is_healthy() {
  component_is_healthy "$1" 10248 && component_is_healthy "$1" 10256 || return 1
  ! is_etcd "$1" || etcd_is_healthy "$1" || return 1
  if is_control_plane "$1"; then
    component_is_healthy "$1" 10251 && component_is_healthy "$1" 10252 && api_server_answers "$1"
  else
    running "$1" nginx-proxy
  fi
}

cluster_is_healthy() {
  local host
  for host in "${all_hosts[@]}"; do node_is_healthy "$host" || return 1; done
}

# The roles of a host as cluster.yml has them.
roles_of() {
  local roles=()
  ! is_control_plane "$1" || roles+=(controlplane)
  ! is_etcd "$1" || roles+=(etcd)
  ! is_worker "$1" || roles+=(worker)
  local IFS=,
  echo "${roles[*]}"
}

# write_cluster_file USER FILE
write_cluster_file() {
  local host role
  {
    printf 'cluster_name: real\nssh_key_path: %s\n' "$state/ssh/id_ed25519"
    [[ -z $prefix ]] || printf 'prefix_path: %s\n' "$prefix"
    ((etcd_owner == 0)) || printf 'services: {etcd: {uid: %s, gid: %s}}\n' "$etcd_owner" "$etcd_owner"
    echo 'nodes:'
    for host in "${all_hosts[@]}"; do
      role=$(roles_of "$host")
      printf -- '- address: %s\n  user: %s\n  role: [%s]\n  hostname_override: %s\n' "$(address_of "$host")" "$1" "$role" "$host"
    done
  } >"$2"
}
