# shellcheck shell=bash disable=SC2154 # names come from lib/
# What cannot be reached, or must not be trusted, is said and counted.

scenario_cable_out() {
  needs v0.2.8 healthy
  as_user rancher
  cable out n5
  trap 'cable in n5' EXIT
  expect_status 1 certroll check -o json --connect-timeout 3s >check.json
  holds check.json 'n5 alone is not reached' '[.nodes[] | select(.reachable | not) | .name] == ["n5"]'
  holds check.json 'and says why' '.nodes[] | select(.name == "n5") | .error | length > 0'
}

scenario_another_host_key() {
  local known_hosts=$work/known_hosts
  needs v0.2.8 healthy
  as_user rancher
  awk -v of="$(address_of n2)" -v like="$(address_of n3)" '
    $1 == like { key = $2 " " $3 } { line[NR] = $0; name[NR] = $1 }
    END { for (i = 1; i <= NR; i++) print name[i] == of ? of " " key : line[i] }' "$state/ssh/known_hosts" >"$known_hosts"
  expect_status 1 certroll check -o json >check.json
  holds check.json 'n2 alone is refused' '[.nodes[] | select(.reachable | not) | .name] == ["n2"]'
  holds check.json 'for its host key' '.nodes[] | select(.name == "n2") | .error | test("host key"; "i")'
}

scenario_unknown_host_key() {
  local known_hosts=$work/known_hosts
  needs v0.2.8 healthy
  as_user rancher
  grep -v "^$(address_of n4) " "$state/ssh/known_hosts" >"$known_hosts"
  expect_status 1 certroll check -o json >check.json
  holds check.json 'n4 alone is refused' '[.nodes[] | select(.reachable | not) | .name] == ["n4"]'
}
