# shellcheck shell=bash disable=SC2154 # names come from lib/
# The whole procedure beside an operator who presses the button in Rancher, on a cluster whose every leaf has expired.

scenario_rotate_manual_as_root() { rotate_manual_as root; }
scenario_rotate_manual_with_sudo() { rotate_manual_as ops; }
scenario_rotate_manual_through_docker() { rotate_manual_as rancher; }

rotate_manual_as() {
  local host container run status=0
  will_change v0.1.17-legacy expired
  as_user "$1"
  in_background rotation apply rotate --via manual --yes --wait 5m -o json
  wait_for_event rotation waiting_for_operator 120
  for host in "${control_plane_hosts[@]}"; do
    must "$host: the bundle is complete before the operator is called" \
      on "$host" test -s /etc/kubernetes/.tmp/kube-apiserver-requestheader-ca.pem
  done
  "$real/operator"
  wait "$background" || status=$?
  ((status == 0)) || { tail -n 20 rotation.events rotation.log; fail "the rotation ended with $status"; }

  holds rotation.events 'the run ends well' '.[-1].kind == "run_finished" and .[-1].exit_status == 0 and .[-1].failed == 0' --slurp
  holds rotation.events 'events are in order' '[.[].sequence] | . == (sort | unique)' --slurp
  for host in "${worker_hosts[@]}"; do
    for container in kubelet kube-proxy; do
      must "$host: $container runs on the new certificate" runs_on_new_files "$host" "$container"
    done
  done
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  must 'etcd lost nothing' key_survives_everywhere
  must 'no secret is in what a run says or keeps' holds_no_secrets

  expect_status 0 certroll check -o json >check.json
  holds check.json 'nothing is stale' 'all(.nodes[].containers[]; .stale | not)'
  expect_status 0 certroll apply rotate --via manual --yes -o json >again.jsonl
  holds again.jsonl 'the second time there is nothing to do' 'all(.[]; .kind != "waiting_for_operator")' --slurp
  run=$(jq -r 'select(.kind == "run_finished") | .run' rotation.events)
  expect_status 0 certroll runs -o json >runs.json
  must 'the run is listed' grep -qF "$run" runs.json
}

# The famous case: Rancher has rotated, the workers have the files, and nobody has restarted them.
scenario_restart_stale_workers() {
  local host container
  will_change v0.2.8 healthy
  as_user rancher
  "$real/operator"
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  certroll check -o json >check.json || true
  holds check.json 'the workers are stale, the others are not' '
    [.nodes[] | select(any(.containers[]; .stale)) | .name] == ["n4", "n5"]'
  started n1 kubelet >before
  expect_status 0 certroll apply restart --yes -o json >apply.jsonl
  for host in "${worker_hosts[@]}"; do
    for container in kubelet kube-proxy; do
      must "$host: $container runs on the new certificate" runs_on_new_files "$host" "$container"
    done
  done
  must 'n1 was left alone' test "$(<before)" == "$(started n1 kubelet)"
  expect_status 0 certroll apply restart --yes -o json >again.jsonl
}
