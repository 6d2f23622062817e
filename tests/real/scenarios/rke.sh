# shellcheck shell=bash disable=SC2154,SC2016 # names come from lib/; `$` in filters is jq's
# certroll runs the real `rke` command, which logs in by itself and works with docker on the hosts. CERTROLL_RKE names it; without it
# these scenarios are skipped. They were made with v0.2.8, built from its source.

needs_rke() {
  [[ -n ${CERTROLL_RKE:-} ]] || skip 'CERTROLL_RKE names no rke command (v0.2.8 is meant, built from github.com/rancher/rke)'
  [[ -x $CERTROLL_RKE ]] || fail "CERTROLL_RKE=$CERTROLL_RKE is not a program"
}

# A cluster.yml for both: rke needs a version of Kubernetes whose images it knows, and dockers newer than it.
for_rke() {
  as_user rancher
  printf 'kubernetes_version: v1.11.6-rancher1-1\nignore_docker_version: true\n' >>cluster.yml
  put_state_files
}

by_rke() { certroll "$1" rotate --via rke --rke-binary "$CERTROLL_RKE" "${@:2}"; }

# rke_rotated FILE: what a run left, looked at without certroll where that can be.
rke_rotated() {
  local host container run
  holds "$1" 'the run ends well' '.[-1].kind == "run_finished" and .[-1].exit_status == 0 and .[-1].failed == 0' --slurp
  holds "$1" 'what rke says is told' '
    any(.[]; .kind == "step_progress" and (.message | test("^rke: .*Successfully restarted Worker Plane")))' --slurp
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  must 'etcd lost nothing' key_survives_everywhere
  must 'no secret is in what a run says or keeps' holds_no_secrets
  for host in "${all_hosts[@]}"; do
    must "$host: every leaf is new, the authorities are not" rke_renewed "$host"
    must "$host: chains, keys and their kind" chains "$host"
    must "$host: the ports serve the new files" serves_new_files "$host"
    for container in kubelet kube-proxy; do
      must "$host: $container runs on the new certificate" runs_on_new_files "$host" "$container"
    done
  done
  run=$(jq -r 'select(.kind == "run_finished") | .run' "$1")
  must 'the state of before is kept, privately' test "$(stat --format %a "cluster.rkestate.$run")" == 600
  must 'the state is new' test "$(sha256sum <cluster.rkestate)" != "$(sha256sum <"cluster.rkestate.$run")"
  expect_status 0 certroll check -o json >check.json
  note "rke: $(jq -r 'select(.kind == "step_finished" and .stage == "rotate") | .outcome.message' "$1")"
}

# rke_renewed HOST: rke writes every file anew, with a line end more: files that are the same certificate differ in bytes.
rke_renewed() {
  local odd
  odd=$(stayed "$1" | grep -v '^kubecfg' || true)
  [[ -z $odd ]] || { say "$1: not written: $odd"; return 1; }
  [[ $(on "$1" openssl x509 -in "$kubernetes/ssl/kube-ca.pem" -noout -fingerprint -sha256) == \
    "$(openssl x509 -in "$state/pki/kube-ca.pem" -noout -fingerprint -sha256)" ]] || return 1
  on "$1" openssl x509 -in "$kubernetes/ssl/kube-node.pem" -noout -checkend $((9 * 365 * 86400)) >/dev/null
}

scenario_rke_expired() {
  needs_rke
  will_change v0.2.8 expired
  for_rke
  remember
  expect_status 0 by_rke plan -o json >plan.json
  holds plan.json 'the plan shows the command' '
    any(.stages[].steps[]; .action.kind == "rotate_by_rke" and .action.version == "v0.2.8"
      and .action.arguments == ["cert", "rotate", "--config", "cluster.yml"])'
  expect_status 0 by_rke apply --yes -o json >apply.jsonl
  rke_rotated apply.jsonl
  expect_status 0 by_rke apply --yes -o json >again.jsonl
  must 'the second time there is nothing to do' test ! -s again.jsonl
}

# A run that rke has made is taken back: the files of the nodes, and the state that rke believes.
scenario_rke_rolled_back() {
  needs_rke
  will_change v0.2.8 healthy
  for_rke
  remember
  cp cluster.rkestate "$work.rkestate"
  expect_status 0 by_rke apply --yes --force -o json >apply.jsonl
  rke_rotated apply.jsonl
  expect_status 0 certroll rollback --yes -o json >rollback.jsonl
  must 'the state of rke is as before' cmp cluster.rkestate "$work.rkestate"
  rm "$work.rkestate"
  for host in "${all_hosts[@]}"; do
    must "$host: every file is as before" diff <(sort "$host.before") <(checksums "$host" "$kubernetes/ssl" | sort)
  done
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  must 'etcd lost nothing' key_survives_everywhere
}

# Takes back what keeps rke out of n5.
let_rke_in() {
  on n5 sh -c 'sed -i "/^Match User rancher\$/,\$d" /etc/ssh/sshd_config && kill -HUP "$(cat /run/sshd.pid)"'
}

# A worker that rke cannot log in to, and certroll can: rke says that all is well, the run does not.
scenario_rke_leaves_one_out() {
  local status=0
  needs_rke
  will_change v0.2.8 expired
  for_rke
  cp cluster.yml known.yml
  # rke asks for docker over the login's own forwarding, which certroll does not need for that.
  on n5 sh -c 'printf "Match User rancher\n  AllowStreamLocalForwarding no\n" >>/etc/ssh/sshd_config && kill -HUP $(cat /run/sshd.pid)'
  trap let_rke_in EXIT
  by_rke apply --yes -o json --health-timeout 20s >apply.jsonl || status=$?
  must 'the run fails' test "$status" == 1
  holds apply.jsonl 'n5 is named' 'any(.[]; .kind == "step_finished" and .stage == "rotate" and (.outcome.message | test("left out n5")))' --slurp
  holds apply.jsonl 'n5 fails' 'any(.[]; .kind == "step_finished" and .node == "n5" and .outcome.outcome == "failed")' --slurp
}
