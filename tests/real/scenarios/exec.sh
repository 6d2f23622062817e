# shellcheck shell=bash disable=SC2154,SC2016 # names come from lib/, `$` in filters is jq's
# `exec` runs a command on every host as the login, and as root in each of the three ways.

scenario_exec_as_root() { exec_as root; }
scenario_exec_with_sudo() { exec_as ops; }
scenario_exec_through_docker() { exec_as rancher; }

exec_as() {
  local sent
  needs v0.2.8 healthy
  as_user "$1"
  expect_status 0 certroll exec -o json -- id -un >as-login.json
  holds_of_all as-login.json 'the login runs it' '.stdout == $user + "\n"' --arg user "$1"
  # Every byte arrives, and nothing of what finds the way to root stays in it.
  sent=$(head -c 100000 /dev/urandom | base64 --wrap 0)
  printf '%s' "$sent" |
    expect_status 0 certroll exec --as-root -o json -- 'id -u; docker inspect --format "{{.State.Running}}" kubelet; cat' >as-root.json
  holds_of_all as-root.json 'root runs it, with docker and all of stdin' '.stdout == "0\ntrue\n" + $sent' --rawfile sent <(printf '%s' "$sent")
  expect_status 1 certroll exec -n n4 --as-root -- 'echo no >&2; exit 3' >out 2>err
  must 'the status is told' grep -qF 'status 3' err
  expect_status 0 certroll exec --fold -- hostname >names
  must 'five answers in five groups' test "$(grep -c '^---' names)" == 5
}

# holds_of_all FILE WHAT FILTER [JQ OPTION...]: five hosts answered with status 0, and the filter says true of each.
holds_of_all() {
  local file=$1 what=$2 filter=$3
  shift 3
  jq --slurp . "$file" >"$file.all"
  holds "$file.all" "$what" "length == 5 and all(.[]; .status == 0 and .error == null and ($filter))" "$@"
}
