# shellcheck shell=bash disable=SC2154,SC2016 # names come from base.sh; `$` in filters is jq's or the host's shell's
# What must hold after certroll has made certificates by itself, looked at without it.

# apply_direct ARGUMENT...: one run that ends well; its events are in apply.jsonl.
apply_direct() {
  local begun=$EPOCHREALTIME
  expect_status 0 certroll apply --via direct --yes -o json "$@" >apply.jsonl
  holds apply.jsonl 'the run ends well' '.[-1].kind == "run_finished" and .[-1].exit_status == 0 and .[-1].failed == 0' --slurp
  note "apply: $(seconds_since "$begun") s"
}

containers_of() {
  printf '%s\n' kubelet kube-proxy
  ! is_control_plane "$1" || printf '%s\n' kube-apiserver kube-controller-manager kube-scheduler
  ! is_etcd "$1" || echo etcd
}

# A line for each container of every host with the moment it started.
start_times() {
  local host containers
  for host in "${all_hosts[@]}"; do
    mapfile -t containers < <(containers_of "$host")
    on "$host" docker inspect --format "$host{{.Name}} {{.State.StartedAt}}" "${containers[@]}"
  done | sort
}

# Owner, mode and ACL of every file of a host that RKE has put there.
traits() {
  on "$1" sh -c 'cd "$1" && find ssl .tmp \( -type f -o -type d \) 2>/dev/null | sort | xargs getfacl --numeric' sh "$kubernetes"
}

# remember: bytes and traits of every host, in HOST.before and HOST.traits.
remember() {
  local host
  for host in "${all_hosts[@]}"; do
    checksums "$host" "$kubernetes/ssl" >"$host.before"
    traits "$host" >"$host.traits"
  done
}

# stayed HOST: the files of ssl/ whose bytes are as they were.
stayed() { checksums "$1" "$kubernetes/ssl" | sort | comm -12 <(sort "$1.before") - | sed 's/.*  \.\///' | sort; }

# all_renewed HOST [KEY]: every leaf and its key are new but for the keys that must live on.
all_renewed() {
  local kept='kubecfg|kube-(ca|apiserver-requestheader-ca|service-account-token)(-key)?\.pem' odd
  odd=$(stayed "$1" | grep -vE "$kept" | grep -vxF -e "${2:-none}" || true)
  [[ -z $odd ]] || { say "$1: not renewed: $odd"; return 1; }
  [[ $(stayed "$1" | grep -c -- '-ca\.pem') -gt 0 ]]
}

same_traits() { diff "$1.traits" <(traits "$1") >&2; }

# serves HOST PORT FILE: what a port serves is what lies in that file there.
serves() {
  local served there
  served=$(openssl s_client -connect "$(address_of "$1"):$2" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256)
  there=$(on "$1" openssl x509 -in "$3" -noout -fingerprint -sha256)
  [[ -n $served && $served == "$there" ]]
}

serves_new_files() {
  local pair=kube-etcd-${network//./-}-1${1#n}.pem port
  if is_etcd "$1"; then
    for port in 2379 2380; do serves "$1" "$port" "$kubernetes/ssl/$pair" || return 1; done
  fi
  ! is_control_plane "$1" || serves "$1" 6443 "$kubernetes/ssl/kube-apiserver.pem"
}

# chains HOST: every leaf is valid now and of an authority that lies beside it.
chains() {
  on "$1" sh -c 'cd "$1/ssl" && for leaf in kube-*.pem; do
      case $leaf in *-key.pem | *-ca.pem | kube-service-account-token.pem) continue ;; esac
      authority=kube-ca.pem
      [ "$leaf" != kube-apiserver-proxy-client.pem ] || authority=kube-apiserver-requestheader-ca.pem
      openssl verify -CAfile "$authority" "$leaf" >/dev/null || exit 1
      [ "$(openssl x509 -in "$leaf" -noout -pubkey)" = "$(openssl pkey -in "${leaf%.pem}-key.pem" -pubout)" ] || exit 1
      head -n 1 "${leaf%.pem}-key.pem" | grep -q "BEGIN RSA PRIVATE KEY" || exit 1
    done' sh "$kubernetes"
}

# Staging is empty, and what a run keeps on a host (the backup, the full state as it was) is root's alone.
no_key_in_staging() {
  [[ -z $(on "$1" find "$kubernetes/.certroll" -type f \( -path '*/staged/*' -o ! -perm 600 -o ! -user root \)) ]]
}

# cluster_is_renewed [KEY]: every host is as it must be after all its certificates were made anew.
cluster_is_renewed() {
  kept_key=${1:-none}
  must 'the cluster is healthy' wait_for 60 'a healthy cluster' cluster_is_healthy
  must 'etcd lost nothing' key_survives_everywhere
  must 'every host is renewed' on_each host_is_renewed "${all_hosts[@]}"
  must 'no secret is in what a run says or keeps' holds_no_secrets
}

# restarted_behind_switch HOST CONTAINER: it started after every file that it reads was put into place (a file keeps its time of
# writing when it is moved there, but not its time of change).
restarted_behind_switch() {
  local pairs=("$2")
  case $2 in
    etcd) pairs=("kube-etcd-${network//./-}-1${1#n}") ;;
    kubelet) pairs=(kube-node) ;;
    kube-apiserver) pairs=(kube-apiserver kube-apiserver-proxy-client kube-node) ;;
  esac
  on "$1" sh -c 'cd "$1/ssl" && shift && stat --format %Z "$@"' sh "$kubernetes" "${pairs[@]/%/.pem}" "${pairs[@]/%/-key.pem}" |
    awk -v started="$(started "$1" "$2")" '$1 > started { late = 1 } END { exit late || NR == 0 }'
}

host_is_renewed() {
  local host=$1 container containers
  mapfile -t containers < <(containers_of "$host")
  must "$host: every leaf is new, the authorities are not" all_renewed "$host" "$kept_key"
  must "$host: chains, keys and their kind" chains "$host"
  must "$host: owners, modes and ACLs" same_traits "$host"
  must "$host: the ports serve the new files" serves_new_files "$host"
  must "$host: no key is left in staging" no_key_in_staging "$host"
  for container in "${containers[@]}"; do
    must "$host: $container runs on the new files" restarted_behind_switch "$host" "$container"
  done
}

# Nothing is left to be done, and nothing is wrong.
is_finished() {
  expect_status 0 certroll check -o json >check.json
  holds check.json 'nothing is stale' 'all(.nodes[].containers[]; .stale | not)'
  holds check.json 'all is healthy' 'all(.nodes[]; (.health | length) > 0 and all(.health[]; .healthy))'
  holds check.json 'what is served lies on disk' 'all(.nodes[].served[]; .matches_disk != false)'
  holds check.json 'no error is found' 'all(.findings[]; .severity != "error")'
  expect_status 0 certroll plan --via direct --detailed-exitcode -o json >nothing.json
}

# administrator: curl with the pair of the kube_config that lies here.
administrator() {
  local folder status=0
  folder=$(mktemp -d)
  awk '$1 == "client-certificate-data:" { print $2 }' kube_config_cluster.yml | tr -d '"' | base64 -d >"$folder/pair"
  awk '$1 == "client-key-data:" { print $2 }' kube_config_cluster.yml | tr -d '"' | base64 -d >>"$folder/pair"
  awk '$1 == "certificate-authority-data:" { print $2 }' kube_config_cluster.yml | tr -d '"' | base64 -d >"$folder/ca"
  curl --silent --show-error --fail --max-time 10 --cacert "$folder/ca" --cert "$folder/pair" \
    "https://$(address_of "${control_plane_hosts[0]}"):6443$1" || status=$?
  rm -rf "$folder"
  return "$status"
}

nodes_are_ready() {
  administrator /api/v1/nodes >nodes.json || return 1
  [[ $(jq --argjson count "${#all_hosts[@]}" '[.items[].status.conditions[] | select(.type == "Ready").status]
    | length == $count and all(. == "True")' nodes.json) == true ]]
}

# {NAME: {certificate, key}} of every pair of a host.
pairs_on() {
  local folder key name
  folder=$(mktemp -d)
  on "$1" tar -C "$kubernetes/ssl" -cf - . | tar -C "$folder" -xf -
  for key in "$folder"/*-key.pem; do
    name=${key%-key.pem}
    jq -n --arg name "${name##*/}" --rawfile certificate "$name.pem" --rawfile key "$key" \
      '{($name): {certificate: $certificate, key: $key}}'
  done | jq -s add
  rm -rf "$folder"
}

# bundle_is_new FILE: a full state has the pairs that lie on the hosts, and the administrator's of the kube_config.
bundle_is_new() {
  local administrator odd
  administrator=$(awk '$1 == "client-certificate-data:" { print $2 }' kube_config_cluster.yml | tr -d '"')
  odd=$(jq -n -r --slurpfile state "$1" --arg administrator "$administrator" \
    --slurpfile pairs <(for host in "${all_hosts[@]}"; do pairs_on "$host"; done | jq -s add) '
    def plain: (. // "") | gsub("\\s+$"; "");
    $state[0] | (.desiredState, .currentState) | .certificatesBundle as $bundle
      | (select(($bundle["kube-admin"].certificatePEM | plain) != ($administrator | @base64d | plain)) | "kube-admin"),
        ($pairs[0] | to_entries[] | select(($bundle[.key].certificatePEM | plain) != (.value.certificate | plain)
          or ($bundle[.key].keyPEM | plain) != (.value.key | plain)) | .key)') || return 1
  [[ -z $odd ]] || { say "$1 has others: ${odd//$'\n'/ }"; return 1; }
}

# kept_privately FILE: a copy of what the file beside was before lies somewhere here, and only its owner can read it.
kept_privately() {
  [[ -n $(find . -type f -perm 600 -exec cmp -s "$1" {} \; -print) ]] &&
    [[ -z $(find . -type f ! -perm 600 -exec cmp -s "$1" {} \; -print) ]]
}

# keep_state_files: what lies beside the cluster.yml, to compare with.
keep_state_files() {
  put_state_files
  mkdir -p "$work.before"
  cp cluster.rkestate kube_config_cluster.yml "$work.before" 2>/dev/null || cp kube_config_cluster.yml "$work.before"
}

state_is_new() {
  local file
  must 'the nodes are Ready, says the new administrator' wait_for 30 'every node Ready' nodes_are_ready
  for file in "$work.before"/*; do
    must "${file##*/} is new" test "$(sha256sum <"$file")" != "$(sha256sum <"${file##*/}")"
    must "${file##*/} is private" test "$(stat --format %a "${file##*/}")" == 600
    must "${file##*/} has a private backup" kept_privately "$file"
  done
  if [[ -e cluster.rkestate ]]; then
    must 'cluster.rkestate has the new pairs' bundle_is_new cluster.rkestate
    administrator /api/v1/namespaces/kube-system/configmaps/full-cluster-state |
      jq -r '.data["full-cluster-state"]' >"$work.before/full"
    must 'full-cluster-state has the new pairs' bundle_is_new "$work.before/full"
  fi
  rm -rf "$work.before"
}

# nobody_noticed: what the clients of begin_probe may have seen while a healthy cluster was renewed.
nobody_noticed() {
  holds probe.json 'there was something to notice' '.writes_acknowledged > 5 * .seconds'
  holds probe.json 'no acknowledged write is lost' '.writes_lost == 0'
  # RKE gives etcd an election timeout of 5 s: a member that was led by the one that restarts may need one election.
  holds probe.json 'no write waited longer than one election' '.longest_write_gap <= 5'
  holds probe.json 'no election took longer' '.longest_without_leader <= 5'
  # An API server takes some ten seconds to come back: two at a time would be seen for most of them. A busy machine answers late for
  # a moment, with all three at once.
  holds probe.json 'one API server at a time' '.longest_with_few_api_servers < 2'
  holds probe.json 'a client of any API server was always served' '.seconds_without_api_server < 2'
}

# critical_path: how long the run took beside what it cannot go below: the time in which some component was on its way from
# its restart to its health, the one order of them being given.
critical_path() {
  jq -s -r '
    .[-1].elapsed_ms as $wall
    | [group_by(.step)[] | select(.[0].step != null)
        | ([.[] | select(.kind == "step_progress" and (.message | startswith("restarting"))).elapsed_ms] | min) as $from
        | ([.[] | select(.kind == "step_finished").elapsed_ms] | max) as $to
        | select($from != null and $to != null) | [$from, $to]] | sort
    | reduce .[] as [$from, $to] ({until: 0, path: 0};
        if $to <= .until then . else {until: $to, path: (.path + $to - ([$from, .until] | max))} end)
    | .path as $path
    | "wall \($wall / 100 | round / 10) s, critical path \($path / 100 | round / 10) s, ratio \(
        if $path == 0 then "unknown" else $wall / $path * 100 | round / 100 end) (goal 1.15)"' apply.jsonl | while read -r line; do note "$line"; done
}
