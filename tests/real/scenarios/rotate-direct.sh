# shellcheck shell=bash disable=SC2154 # names come from lib/
# certroll makes the certificates itself, from the cluster's own authority, while the cluster keeps working.

scenario_rotate_direct_and_back() {
  local host watcher
  will_change v0.2.8 healthy
  as_user rancher
  for host in "${all_hosts[@]}"; do checksums "$host" /etc/kubernetes/ssl >"$host.before"; done
  watch_etcd >etcd.watch &
  watcher=$!
  apply_direct --force
  kill "$watcher"
  must 'etcd kept its quorum' test "$(awk '$1 > 1' etcd.watch)" == ''
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  must 'etcd lost nothing' key_survives_everywhere
  for host in "${all_hosts[@]}"; do
    checksums "$host" /etc/kubernetes/ssl >"$host.after"
    must "$host: every leaf is new, the authority is not" only_authorities_stay "$host"
    must "$host: kubelet runs on the new certificate" runs_on_new_files "$host" kubelet
  done
  must 'tokens stay valid' cmp <(grep kube-service-account-token-key n1.before) <(grep kube-service-account-token-key n1.after)
  expect_status 0 certroll check -o json >check.json
  must 'no secret is in what a run says or keeps' holds_no_secrets

  expect_status 0 certroll rollback --yes -o json >rollback.jsonl
  for host in "${all_hosts[@]}"; do
    must "$host: the old bytes are back" cmp "$host.before" <(checksums "$host" /etc/kubernetes/ssl)
  done
  must 'the cluster is healthy again' wait_for 60 'a healthy cluster' cluster_is_healthy
}

scenario_rotate_direct_when_expired() {
  local key=ssl/kube-apiserver-key.pem before
  will_change v0.1.17-legacy expired
  as_user ops
  before=$(on n1 sha256sum /etc/kubernetes/$key)
  apply_direct
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  must 'etcd lost nothing' key_survives_everywhere
  # kube-apiserver's own key signs the tokens of a cluster from before rke 0.2.
  must 'tokens stay valid' test "$before" == "$(on n1 sha256sum /etc/kubernetes/$key)"
  expect_status 0 certroll check -o json >check.json
  expect_status 0 apply_direct
}

apply_direct() {
  local status=0
  certroll apply rotate --via direct --yes -o json "$@" >>direct.jsonl || status=$?
  ((status != 2)) || skip 'the program has no --via direct'
  return "$status"
}

# How many members of etcd do not listen, as often as it can be asked.
watch_etcd() {
  local host down
  while :; do
    down=0
    for host in "${control_plane_hosts[@]}"; do
      (: >"/dev/tcp/$(address_of "$host")/2379") 2>/dev/null || down=$((down + 1))
    done
    echo "$down"
    sleep 0.1
  done
}

# Among the files that are as they were: kube-ca, the requestheader CA, kubecfg files and the service account's pair.
only_authorities_stay() {
  ! comm -12 <(sort "$1.before") <(sort "$1.after") | grep -v -e '-ca\.pem' -e '-ca-key\.pem' -e kubecfg -e kube-service-account-token
}
