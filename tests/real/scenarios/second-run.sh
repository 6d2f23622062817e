# shellcheck shell=bash disable=SC2154 # names come from lib/
# Two runs on one cluster: the second is refused, and a cancelled one lets go.

scenario_second_run_is_refused() {
  local host status=0
  will_change v0.1.17-legacy expired
  as_user rancher
  in_background first apply rotate --via manual --yes --wait 5m -o json
  wait_for_event first waiting_for_operator 120
  for host in "${control_plane_hosts[@]}"; do
    must "$host is locked" on "$host" test -e /etc/kubernetes/.certroll/lock
  done
  expect_status 4 certroll apply rotate --via manual --yes -o json >second.jsonl 2>second.log
  kill -INT "$background"
  wait "$background" || status=$?
  ((status == 130)) || fail "a cancelled run ends with $status instead of 130"
  for host in "${control_plane_hosts[@]}"; do
    must "$host is free again" on "$host" test ! -e /etc/kubernetes/.certroll/lock
  done
}
