# shellcheck shell=bash disable=SC2154 # names come from base.sh
# The clients that must not notice a rotation, and what they noticed.

list_of() { for host in "$@"; do address_of "$host"; done | paste -sd,; }

# begin_probe: clients with the certificates that the cluster has now; what they notice goes to probe.json.
begin_probe() {
  local pairs=$work/clients
  mkdir -m 700 "$pairs"
  cp "$state/pki"/kube-{ca,node,node-key,admin,admin-key}.pem "$pairs"
  rm -f probe.ready
  "$real/probe" "$pairs" probe.ready "$(list_of "${etcd_hosts[@]}")" "$(list_of "${control_plane_hosts[@]}")" >probe.json &
  probe=$!
  wait_for 30 'clients that are served' test -e probe.ready
}

# end_probe: what they noticed is in probe.json, and is said.
end_probe() {
  kill "$probe"
  wait "$probe"
  rm -r "$work/clients"
  note "$(jq -c . probe.json)"
}
