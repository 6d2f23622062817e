# shellcheck shell=bash disable=SC2154,SC2016 # names come from lib/; `$` in filters is jq's or the host's shell's
# Something breaks in the middle of a rotation: the run says where, and `apply --resume` ends it as if nothing had been; or
# `rollback` takes it back.

# begin_rotation LAYOUT USER [ARGUMENT...]: a rotation of a working cluster, beside the scenario.
begin_rotation() {
  local layout=$1 user=$2
  shift 2
  needs_working "$layout"
  rm -f "$state/validity"
  as_user "$user"
  keep_state_files
  remember
  in_background run apply --via direct --force --yes -o json --health-timeout 30s --connect-timeout 3s "$@"
}

# resumed LAYOUT [ARGUMENT...]: the run goes on and ends well, and the cluster is as after any other rotation.
resumed() {
  local layout=$1
  shift
  expect_status 0 certroll apply --resume --yes -o json "$@" >resume.jsonl
  holds resume.jsonl 'the run ends well' '.[-1].kind == "run_finished" and .[-1].exit_status == 0 and .[-1].failed == 0' --slurp
  holds resume.jsonl 'it is the same run' '(map(select(.kind == "run_resumed")) | length == 1) and .[-1].run == $run' --slurp \
    --arg run "$(jq -r 'select(.kind == "run_started").run' run.events)"
  cluster_is_renewed
  state_is_new
  is_finished
  has_renewed "$layout"
}

# fails_at HOST: the summary of the run names the host, and the way out.
fails_at() {
  holds run.events "the run has failed on $1" 'any(.[]; .kind == "step_finished" and .node == $host and .outcome.outcome == "failed")' \
    --slurp --arg host "$1"
  expect_status 0 certroll runs -o json >runs.json
  must 'the way out is named' grep -q 'apply --resume' <(certroll runs "$(jq -r 'select(.kind == "run_started").run' run.events)")
}

scenario_fault_killed_and_resumed() {
  begin_rotation v0.2.8 rancher
  wait_for_line run '"node":"n2".*restarting kube-apiserver' 120
  kill -KILL "$background"
  ended 137 run
  # The etcd members and n1 have been switched: their pairs are read back, not made once more.
  checksums n1 "$kubernetes/ssl" >n1.switched
  resumed v0.2.8
  must 'what was switched is kept' diff n1.switched <(checksums n1 "$kubernetes/ssl")
}

scenario_fault_cable_out() {
  begin_rotation v0.2.8 ops
  trap 'cable in n2' EXIT
  wait_for_line run '"node":"n2".*restarting kube-apiserver' 120
  cable out n2
  ended 1 run
  fails_at n2
  cable in n2
  resumed v0.2.8
}

# Half a minute is less than what a run puts up with.
scenario_fault_cable_loose() {
  begin_rotation v0.2.8 root
  trap 'cable in n4' EXIT
  wait_for_line run '"node":"n4".*restarting kube' 180
  cable out n4
  sleep 8
  cable in n4
  ended 0 run
  cluster_is_renewed
  is_finished
  has_renewed v0.2.8
}

scenario_fault_power_off() {
  begin_rotation v0.2.8 root
  trap 'power_on n3' EXIT
  wait_for_line run '"node":"n3".*restarting etcd' 120
  power_off n3
  ended 1 run
  fails_at n3
  power_on n3
  trap - EXIT
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  resumed v0.2.8
}

scenario_fault_docker_killed() {
  begin_rotation v0.2.8 rancher
  trap 'docker_daemon on n1' EXIT
  wait_for_line run '"node":"n1".*restarting kube-controller-manager' 120
  docker_daemon off n1
  ended 1 run
  fails_at n1
  docker_daemon on n1
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  resumed v0.2.8
}

# A small file system, which is full when the new files come: nothing is switched anywhere.
scenario_fault_disk_full() {
  local host
  needs_working v0.2.8
  on n4 mkdir -p "$kubernetes/.certroll"
  on n4 mount -t tmpfs -o size=2m,mode=700 tmpfs "$kubernetes/.certroll"
  trap 'on n4 umount "$kubernetes/.certroll"' EXIT
  begin_rotation v0.2.8 root
  wait_for_line run '"kind":"stage_finished","stage":"backup"' 60
  on n4 dd if=/dev/zero of="$kubernetes/.certroll/filler" bs=64k status=none || true
  ended 1 run
  fails_at n4
  for host in "${all_hosts[@]}"; do must "$host was not touched" diff "$host.before" <(checksums "$host" "$kubernetes/ssl"); done
  on n4 rm "$kubernetes/.certroll/filler"
  resumed v0.2.8
}

# Everything is renewed, and taken back again, byte for byte; then the taking back is taken back.
scenario_fault_rolled_back() {
  local host
  begin_rotation v0.2.8 rancher
  ended 0 run
  for host in "${all_hosts[@]}"; do checksums "$host" "$kubernetes/ssl" >"$host.after"; done
  expect_status 0 certroll rollback --yes -o json >rollback.jsonl
  for host in "${all_hosts[@]}"; do
    must "$host has its old files" diff "$host.before" <(checksums "$host" "$kubernetes/ssl")
    must "$host: owners, modes and ACLs" same_traits "$host"
    must "$host: the ports serve them" serves_new_files "$host"
  done
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  for file in "$work.before"/*; do must "${file##*/} is as it was" cmp "$file" "${file##*/}"; done
  expect_status 0 certroll check -o json >check.json
  holds check.json 'nothing is stale' 'all(.nodes[].containers[]; .stale | not)'
  expect_status 0 certroll rollback --yes -o json >again.jsonl
  for host in "${all_hosts[@]}"; do
    must "$host has the new files again" diff "$host.after" <(checksums "$host" "$kubernetes/ssl")
  done
  cluster_is_renewed
  has_renewed v0.2.8
}

# A run that failed halfway is taken back instead of ended.
scenario_fault_failed_and_rolled_back() {
  local host
  begin_rotation v0.2.8 ops
  trap 'power_on n4' EXIT
  wait_for_line run '"node":"n4".*restarting kubelet' 180
  power_off n4
  ended 1 run
  power_on n4
  trap - EXIT
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  expect_status 0 certroll rollback --yes -o json >rollback.jsonl
  for host in "${all_hosts[@]}"; do
    must "$host has its old files" diff "$host.before" <(checksums "$host" "$kubernetes/ssl")
    must "$host: owners, modes and ACLs" same_traits "$host"
  done
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  has_renewed v0.2.8
}
