# shellcheck shell=bash disable=SC2154 # names come from lib/
# The bundle in .tmp of a cluster from old times is completed, once, and nothing else is touched.

bundle=/etc/kubernetes/.tmp

scenario_check_sees_expiry() {
  needs v0.1.17-legacy expired
  as_user rancher
  expect_status 3 certroll check -o json >check.json
  holds check.json 'every leaf in ssl has expired' '
    all(.nodes[].certificates[] | select(.class == "leaf" and (.path | test("/ssl/"))); .status == "expired")'
  holds check.json 'the authority has not' 'all(.nodes[].certificates[] | select(.class == "ca"); .status == "ok")'
  holds check.json 'etcd is seen to be ill' '
    all(.nodes[] | select(.roles | index("etcd")); any(.health[] | select(.service == "etcd"); .healthy | not))'
  holds check.json 'the bundle misses files' '
    all(.nodes[] | select(.roles | index("controlplane")); .legacy_bundle == "incomplete")'
  holds check.json 'an error is found' 'any(.findings[]; .severity == "error")'
}

scenario_repair_with_sudo() { repair_as ops; }
scenario_repair_through_docker() { repair_as rancher; }

repair_as() {
  local host before
  will_change v0.1.17-legacy expired
  as_user "$1"
  # The real bundle has the pair; what people copied together from ssl/ has not (n3).
  on n3 sh -c "rm $bundle/*kube-admin*"
  for host in "${all_hosts[@]}"; do checksums "$host" /etc/kubernetes/ssl >"$host.ssl"; done
  for host in "${control_plane_hosts[@]}"; do checksums "$host" /etc/kubernetes >"$host.before"; done

  expect_status 0 certroll plan repair -o json >plan.json
  holds plan.json 'only controlplane and etcd nodes are touched' '
    [.stages[].steps[].node | select(. != null)] | unique | (length == 3 and all(.[]; test("n[123]|10\\.77\\.0\\.1[123]")))'
  expect_status 0 certroll apply repair --yes -o json >apply.jsonl
  holds apply.jsonl 'the run ends well' '.[-1].kind == "run_finished" and .[-1].exit_status == 0' --slurp

  for host in "${control_plane_hosts[@]}"; do
    must "$host: the four copies" on "$host" sh -c "
      cd $bundle && cmp kube-ca.pem kube-apiserver-requestheader-ca.pem &&
      cmp kube-ca-key.pem kube-apiserver-requestheader-ca-key.pem &&
      cmp kube-apiserver.pem kube-apiserver-proxy-client.pem &&
      cmp kube-apiserver-key.pem kube-apiserver-proxy-client-key.pem"
    must "$host: owner and mode" test -z "$(on "$host" find $bundle -type f \( ! -perm 600 -o ! -user root \))"
    must "$host: an administrator's pair" administrator_is_there "$host"
    must "$host: what was in the bundle is still there" bundle_survived "$host"
    must "$host: a whole backup" backup_is_whole "$host"
  done
  for host in "${all_hosts[@]}"; do
    before=$(<"$host.ssl")
    must "$host: ssl/ is untouched" test "$before" == "$(checksums "$host" /etc/kubernetes/ssl)"
  done

  for host in "${control_plane_hosts[@]}"; do checksums "$host" /etc/kubernetes >"$host.after"; done
  expect_status 0 certroll apply repair --yes -o json >again.jsonl
  for host in "${control_plane_hosts[@]}"; do
    must "$host: the second time changes nothing" cmp "$host.after" <(checksums "$host" /etc/kubernetes)
  done
  expect_status 0 certroll plan repair --detailed-exitcode -o json >nothing.json
  must 'no secret is in what a run says or keeps' holds_no_secrets
}

# The pair of kube-admin is of this cluster's authority, an administrator's, and its key fits.
administrator_is_there() {
  # shellcheck disable=SC2016 # the host's shell expands these
  on "$1" sh -c '
    cd "$1" && openssl verify -no_check_time -CAfile kube-ca.pem kube-admin.pem >/dev/null &&
    openssl x509 -in kube-admin.pem -noout -subject | grep "O = system:masters" | grep -q "CN = kube-admin" &&
    head -n 1 kube-admin-key.pem | grep -q "RSA PRIVATE KEY" &&
    test "$(openssl x509 -in kube-admin.pem -noout -pubkey)" = "$(openssl rsa -in kube-admin-key.pem -pubout 2>/dev/null)"
  ' sh "$bundle"
}

# Every file that was in the bundle has the same bytes, but for kube-admin's, which may have been renewed.
bundle_survived() {
  local now
  now=$(checksums "$1" /etc/kubernetes)
  while read -r line; do
    [[ $line == *kube-admin* ]] || grep -qxF "$line" <<<"$now" || return 1
  done < <(grep '  ./.tmp/' "$1.before")
}

# backup_is_whole HOST: beside HOST.before, which has the files and their bytes as they were before the run.
backup_is_whole() {
  local host=$1 found
  [[ -z $(on "$host" find /etc/kubernetes/.certroll -type d ! -perm 700) ]] || return 1
  [[ -z $(on "$host" find /etc/kubernetes/.certroll -type f ! -perm 600) ]] || return 1
  [[ -z $(on "$host" find /etc/kubernetes/.certroll ! -user root) ]] || return 1
  # shellcheck disable=SC2016 # the host's shell expands these
  found=$(on "$host" sh -c '
    archive=$(find /etc/kubernetes/.certroll -name "*.tar*" | head -n 1) && test -n "$archive" || exit 1
    folder=$(mktemp -d) && tar -C "$folder" -xf "$archive" || exit 1
    cd "$(dirname "$(find "$folder" -type d -name ssl | head -n 1)")" &&
    find . -type f ! -path "./.certroll/*" -exec sha256sum {} + | sort -k 2
    rm -rf "$folder"') || return 1
  [[ $found == "$(<"$host.before")" ]]
}
