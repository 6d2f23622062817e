# shellcheck shell=bash disable=SC2154,SC2016 # names come from lib/; `$` in filters is jq's or the host's shell's
# certroll makes the certificates itself, from the cluster's own authority: nobody notices where the cluster is healthy, and
# one command heals it where every leaf has expired.

scenario_direct_ca_key_missing() { refused_without_key root; }
scenario_direct_ca_key_mismatched() { refused_without_key ops; }
scenario_direct_ca_key_encrypted() { refused_without_key rancher; }

# refused_without_key USER: the authority's key of every control plane node is not one to sign with; nothing is changed.
refused_without_key() {
  local host
  needs v0.2.8 healthy
  as_user "$1"
  trap give_keys_back EXIT
  for host in "${control_plane_hosts[@]}"; do
    on "$host" cp -p "$kubernetes/ssl/kube-ca-key.pem" /root/kube-ca-key.kept
    on "$host" sh -c 'cd "$1/ssl" && case $2 in
      *missing) rm kube-ca-key.pem ;;
      *mismatched) openssl genrsa -traditional -out kube-ca-key.pem 2048 ;;
      *encrypted) openssl rsa -traditional -aes128 -passout pass:secret -in /root/kube-ca-key.kept -out kube-ca-key.pem ;;
    esac' sh "$kubernetes" "$work" 2>/dev/null
  done
  for host in "${all_hosts[@]}"; do everything_of "$host"; done >before
  expect_status 4 certroll plan --via direct --force -o json >plan.json
  holds plan.json 'the blocker speaks of the key' '.blockers | length > 0 and (tojson | test("kube-ca-key"))'
  for host in "${control_plane_hosts[@]}"; do
    holds plan.json "the blocker names $host" '.blockers | tojson | test($host)' --arg host "$host"
  done
  expect_status 4 certroll apply --via direct --force --yes -o json >apply.jsonl
  for host in "${all_hosts[@]}"; do everything_of "$host"; done >after
  must 'nothing was changed' diff before after
  must 'no secret is in what a run says or keeps' holds_no_secrets
}

give_keys_back() {
  local host
  for host in "${control_plane_hosts[@]}"; do
    on "$host" sh -c 'test ! -e /root/kube-ca-key.kept || mv /root/kube-ca-key.kept "$1/ssl/kube-ca-key.pem"' sh "$kubernetes"
  done
}

# Files and containers of a host.
everything_of() {
  on "$1" find "$kubernetes" -printf '%p %m %U %G %T@\n' | sort
  checksums "$1" "$kubernetes"
  on "$1" docker ps --all --quiet --no-trunc | sort
}

scenario_direct_rancher_launched() {
  needs v0.2.8 healthy
  as_user rancher
  trap 'on n4 docker rm --force k8s_agent_cattle-node-agent-abcde_cattle-system_0a_0 >/dev/null' EXIT
  start_container n4 k8s_agent_cattle-node-agent-abcde_cattle-system_0a_0 "$rke_tools_image" \
    '.Labels = {"io.kubernetes.container.name": "agent", "io.kubernetes.pod.namespace": "cattle-system"} | .Cmd = ["sleep", "3600"]'
  expect_status 4 certroll plan --via direct --force -o json >plan.json
  holds plan.json 'the blocker names the way out' '.blockers | length == 1 and (tojson | test("accept-rancher-revert"))'
  expect_status 4 certroll apply --via direct --force --yes -o json >apply.jsonl
  expect_status 0 certroll plan --via direct --force --accept-rancher-revert -o json >accepted.json
}

# Shows that the probe can fail: everything of the control plane at once, as `rke cert rotate` does it.
scenario_direct_control() {
  needs_working v0.2.8
  begin_probe
  sleep 2
  on_each restart_all "${control_plane_hosts[@]}"
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  sleep 1
  end_probe
  holds probe.json 'no acknowledged write is lost' '.writes_lost == 0'
  holds probe.json 'the writer notices' '.longest_write_gap > 1'
  holds probe.json 'nobody leads for a while' '.longest_without_leader > 1'
  holds probe.json 'the API is away' '.seconds_without_api_server > 1 and .api_servers_at_once == 3'
}

scenario_direct_healthy() {
  local host
  will_change v0.2.8 healthy
  as_user rancher
  keep_state_files
  # What a careful administrator has added must survive.
  on n1 setfacl --modify user:1000:r "$kubernetes/ssl/kube-apiserver.pem"
  on n4 chmod 644 "$kubernetes/ssl/kube-proxy.pem"
  # What a real API server took from its restart to a good /healthz on such a machine.
  for host in "${control_plane_hosts[@]}"; do on "$host" sh -c "echo 9 >/etc/kubernetes/start-seconds"; done
  remember
  begin_probe
  apply_direct --force
  end_probe
  critical_path
  for host in "${control_plane_hosts[@]}"; do on "$host" rm /etc/kubernetes/start-seconds; done
  nobody_noticed
  cluster_is_renewed
  state_is_new
  is_finished
  has_renewed v0.2.8
}

scenario_direct_one_service() {
  local host
  needs_working v0.2.8
  as_user ops
  rm -f "$state/validity"
  remember
  start_times >before
  apply_direct --force --service kube-scheduler
  start_times >after
  must 'kube-scheduler alone was restarted' \
    test "$(comm -13 before after | cut -d' ' -f1 | paste -sd' ')" == 'n1/kube-scheduler n2/kube-scheduler n3/kube-scheduler'
  for host in "${control_plane_hosts[@]}"; do
    must "$host: its pair alone is new" test "$(changed_files "$host")" == 'kube-scheduler-key.pem kube-scheduler.pem'
  done
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  is_finished
  has_renewed v0.2.8
}

changed_files() {
  checksums "$1" "$kubernetes/ssl" | sort | comm -13 <(sort "$1.before") - | sed 's/.*  \.\///' | sort | paste -sd' '
}

scenario_direct_kubelet_serving() {
  local host folder=/var/lib/kubelet/pki
  needs_working v0.2.8
  as_user root
  rm -f "$state/validity"
  start_times >before
  for host in "${all_hosts[@]}"; do on "$host" sha256sum $folder/kubelet.crt $folder/kubelet.key >"$host.pair"; done
  # It lives for one year, and RKE's leaves for longer: this makes it alone due.
  apply_direct --kubelet-serving --renew-days 400
  start_times >after
  must 'kubelet alone was restarted' test "$(comm -13 before after | cut -d' ' -f1 | paste -sd' ')" == \
    'n1/kubelet n2/kubelet n3/kubelet n4/kubelet n5/kubelet'
  for host in "${all_hosts[@]}"; do
    must "$host: a new pair" test "$(cut -d' ' -f1 "$host.pair" | paste -sd' ')" != \
      "$(on "$host" sha256sum $folder/kubelet.crt $folder/kubelet.key | cut -d' ' -f1 | paste -sd' ')"
    must "$host: it is served" serves "$host" 10250 $folder/kubelet.crt
    must "$host: the old one is kept" old_pair_is_kept "$host"
  done
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  is_finished
  has_renewed v0.2.8
}

# Among the files and archives of the runs on a host is kubelet's old certificate.
old_pair_is_kept() {
  on "$1" sh -c 'cd "$1/.certroll" && folder=$(mktemp -d) &&
    for archive in $(find . -name "*.tar*"); do mkdir -p "$folder/$archive" && tar -C "$folder/$archive" -xf "$archive"; done
    find . "$folder" -type f -exec sha256sum {} + | grep -q "^$2 "; found=$?; rm -rf "$folder"; exit $found' \
    sh "$kubernetes" "$(head -n 1 "$1.pair" | cut -d' ' -f1)"
}

scenario_direct_expired() {
  will_change v0.2.8 expired
  as_user ops
  keep_state_files
  remember
  apply_direct
  cluster_is_renewed
  state_is_new
  is_finished
}

scenario_direct_expired_legacy() {
  will_change v0.1.17-legacy expired
  as_user root
  keep_state_files
  remember
  apply_direct
  # kube-apiserver's own key signs the tokens of a cluster from before rke 0.2.
  cluster_is_renewed kube-apiserver-key.pem
  must 'tokens stay valid' grep -qx kube-apiserver-key.pem <(stayed n1)
  state_is_new
  is_finished
}

# etcd-only, controlplane-only and worker-only nodes, another prefix, and an etcd that is not root's.
scenario_direct_roles() {
  will_change v0.2.8-roles healthy
  as_user rancher
  keep_state_files
  remember
  begin_probe
  apply_direct --force
  end_probe
  nobody_noticed
  cluster_is_renewed
  must 'etcd files are still its own' test "$(on n3 find "$kubernetes/ssl" -name 'kube-etcd-*' ! -uid "$etcd_owner")" == ''
  must 'n3 has what an etcd node has' same_files n3
  must 'n5 has what a worker has' same_files n5
  state_is_new
  is_finished
}

same_files() { diff <(sed 's/.*  //' "$1.before" | sort) <(checksums "$1" "$kubernetes/ssl" | sed 's/.*  //' | sort) >&2; }
