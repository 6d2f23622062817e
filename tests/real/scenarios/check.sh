# shellcheck shell=bash disable=SC2154,SC2016 # names come from lib/, `$` in filters is jq's
# `check` sees the truth, in each of the three ways to root, and changes nothing.

scenario_check_as_root() { check_as root root; }
scenario_check_with_sudo() { check_as ops sudo; }
scenario_check_through_docker() { check_as rancher docker; }

check_as() {
  local host before after
  needs v0.2.8 healthy
  as_user "$1"
  before=$(traces)
  expect_status 0 certroll check -o json >check.json
  after=$(traces)
  must 'check leaves nothing behind' test "$before" == "$after"
  holds check.json 'five nodes' '.version == 1 and ([.nodes[].name] | sort) == ["n1", "n2", "n3", "n4", "n5"]'
  holds check.json 'every node is reached' 'all(.nodes[]; .reachable and .error == null)'
  holds check.json "root by way of $2" 'all(.nodes[]; .access == $access)' --arg access "$2"
  holds check.json 'clocks agree' 'all(.nodes[]; (.clock_skew_seconds | fabs) < 5)'
  holds check.json 'the folder' 'all(.nodes[]; .kubernetes_directory == "/etc/kubernetes")'
  for host in "${all_hosts[@]}"; do
    holds check.json "the certificates of $host" '
      [.nodes[] | select(.name == $host) | .certificates[] | select(.path | test("/etc/kubernetes/ssl/"))
        | {(.path | split("/") | last): (.sha256 | ascii_downcase | gsub(":"; ""))}] | add == $expected' \
      --arg host "$host" --argjson expected "$(expected_certificates "$host")"
  done
  holds check.json 'leaves have matching keys' 'all(.nodes[].certificates[] | select(.class == "leaf"); .key_matches)'
  holds check.json 'no key is another' 'all(.nodes[].certificates[]; .key_matches != false)'
  holds check.json 'what is served lies on disk' 'all(.nodes[].served[]; .matches_disk != false)'
  holds check.json 'kube-apiserver and etcd were asked' '
    [.nodes[] | select(.roles | index("controlplane")) | [.served[] | select(.matches_disk) | .service]
      | index("kube-apiserver") and index("etcd")] | length == 3 and all'
  holds check.json 'all is healthy' 'all(.nodes[]; (.health | length) > 0 and all(.health[]; .healthy))'
  holds check.json 'nothing is stale' 'all(.nodes[].containers[]; .stale | not)'
  holds check.json 'no bundle of old times' 'all(.nodes[]; .legacy_bundle == null or .legacy_bundle == "absent")'
  holds check.json 'no error is found' 'all(.findings[]; .severity != "error")'
}

# Containers and files of every host, as far as a look around could change them.
traces() {
  local host
  for host in "${all_hosts[@]}"; do
    on "$host" docker ps --all --quiet --no-trunc
    on "$host" find /etc/kubernetes /home -printf '%p %m %T@\n'
  done
}

scenario_check_with_an_rsa_key() {
  needs v0.2.8 healthy
  as_user rancher
  expect_status 0 certroll check -o json --ssh-key "$state/ssh/id_rsa" >check.json
  holds check.json 'every node is reached' 'all(.nodes[]; .reachable)'
}
