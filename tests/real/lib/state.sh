# shellcheck shell=bash disable=SC2154 # names come from base.sh
# What RKE keeps of a cluster beside its nodes: in the API (the stand-in's objects lie in etcd as plain JSON), and in files
# beside the cluster.yml. The shapes are those that the real rke v0.1.17 and v0.2.8 left.

# put_key KEY <value: into etcd, without an API server.
put_key() { on "${etcd_hosts[0]}" docker exec --interactive etcd etcdctl put "$1" >/dev/null 2>&1; }

key_of() { on "${etcd_hosts[0]}" docker exec etcd etcdctl get --print-value-only "$1" 2>/dev/null; }

# component_config NAME: the kubeconfig that belongs to a pair, where one does.
component_config() {
  if [[ $1 == kube-admin ]]; then
    administrator_config "$state/pki"
  elif [[ -e $state/pki/kubecfg-$1.yaml ]]; then
    cat "$state/pki/kubecfg-$1.yaml"
  fi
}

# bundle_entry NAME: {NAME: CertificatePKI} of a pair of the pki.
bundle_entry() {
  jq -n --arg name "$1" --rawfile certificate "$state/pki/$1.pem" --rawfile key "$state/pki/$1-key.pem" \
    --rawfile config <(component_config "$1") '
    ($name | ascii_upcase | gsub("-"; "_")) as $variable | {($name): {
      certificatePEM: $certificate, keyPEM: $key, config: $config, name: $name,
      commonName: ({"kube-admin": "kube-admin", "kube-node": "system:node"}[$name] // "system:" + $name),
      ouName: ({"kube-admin": "system:masters", "kube-node": "system:nodes"}[$name] // ""),
      envName: $variable, path: "/etc/kubernetes/ssl/\($name).pem",
      keyEnvName: ($variable + "_KEY"), keyPath: "/etc/kubernetes/ssl/\($name)-key.pem",
      configEnvName: (if $config == "" then "" else "KUBECFG_" + $variable end),
      configPath: (if $config == "" then "" elif $name == "kube-admin" then "./kube_config_cluster.yml"
        else "/etc/kubernetes/ssl/kubecfg-\($name).yaml" end)}}'
}

# The names of all pairs of the pki.
pair_names() {
  find "$state/pki" -maxdepth 1 -name '*.pem' ! -name '*-key.pem' -printf '%f\n' | sed 's/\.pem$//' | sort
}

certificates_bundle() {
  local name
  pair_names | while read -r name; do bundle_entry "$name"; done | jq -s add
}

# administrator_config FOLDER: the kube_config of the pair there.
administrator_config() {
  cat <<END
apiVersion: v1
kind: Config
clusters:
- cluster:
    api-version: v1
    certificate-authority-data: $(base64 -w0 "$state/pki/kube-ca.pem")
    server: "https://$(address_of "${control_plane_hosts[0]}"):6443"
  name: "real"
contexts:
- context:
    cluster: "real"
    user: "kube-admin-real"
  name: "real"
current-context: "real"
users:
- name: "kube-admin-real"
  user:
    client-certificate-data: $(base64 -w0 "$1/kube-admin.pem")
    client-key-data: $(base64 -w0 "$1/kube-admin-key.pem")
END
}

full_state() {
  local host nodes
  nodes=$(for host in "${all_hosts[@]}"; do
    jq -n --arg address "$(address_of "$host")" --arg host "$host" --arg roles "$(roles_of "$host")" '
      {address: $address, port: "22", internalAddress: $address, role: ($roles | split(",")), hostnameOverride: $host,
       user: "rancher", sshKeyPath: "~/.ssh/id_rsa"}'
  done | jq -s .)
  certificates_bundle | jq --argjson nodes "$nodes" --arg prefix "${prefix:-/}" '
    {rkeConfig: {nodes: $nodes, services: {kubeApi: {serviceClusterIpRange: "10.43.0.0/16"}},
      kubernetesVersion: "v1.11.6-rancher1-1", prefixPath: $prefix, clusterName: "real"},
     certificatesBundle: .} | {desiredState: ., currentState: .}'
}

# kube_object KIND NAME DATA: an object of kube-system.
kube_object() {
  jq -cn --arg kind "$1" --arg name "$2" --argjson data "$3" '{kind: $kind, apiVersion: "v1",
    metadata: {name: $name, namespace: "kube-system", creationTimestamp: "2026-11-21T19:15:24Z"}, data: $data}
    + (if $kind == "Secret" then {type: "Opaque"} else {} end)'
}

# Puts what RKE keeps into the API: rke 0.2 a ConfigMap with everything, rke 0.1 a Secret for each pair.
put_state() {
  local name data
  if [[ $(<"$state/layout") == v0.1.17-legacy ]]; then
    for name in $(pair_names); do
      data=$(bundle_entry "$name" | jq -c '.[] | {Certificate: .certificatePEM, EnvName: .envName, Path: .path,
        Key: .keyPEM, KeyEnvName: .keyEnvName, KeyPath: .keyPath}
        + (if .config == "" then {} else {Config: .config, ConfigEnvName: .configEnvName, ConfigPath: .configPath} end)
        | map_values(@base64)')
      kube_object Secret "$name" "$data" | put_key "/registry/secrets/kube-system/$name"
    done
  else
    data=$(full_state | tee "$state/cluster.rkestate" | jq -c '{"full-cluster-state": tojson}')
    kube_object ConfigMap full-cluster-state "$data" | put_key /registry/configmaps/kube-system/full-cluster-state
  fi
}

# Puts the files of the `rke` command beside the cluster.yml of a scenario.
put_state_files() {
  (
    umask 077
    administrator_config "$state/pki" >kube_config_cluster.yml
    [[ $(<"$state/layout") == v0.1.17-legacy ]] || cp "$state/cluster.rkestate" cluster.rkestate
  )
}
