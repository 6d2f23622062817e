# shellcheck shell=bash disable=SC2154 # names come from base.sh
# The containers of a node as RKE starts them: names, labels, images, mounts and arguments (read out of clusters that
# rke v0.1.17 and v0.2.8 made). They are created through docker's API, since its command cannot say
# `"Entrypoint": [several, words]`, which is how RKE passes every argument.

ssl=/etc/kubernetes/ssl

# docker_api HOST METHOD PATH [BODY]
docker_api() {
  on "$1" curl --silent --show-error --fail-with-body --unix-socket /run/docker.sock \
    --request "$2" --header 'Content-Type: application/json' --data "${4:-}" "http://docker$3"
}

# start_container HOST NAME IMAGE CONFIG: CONFIG is jq that shapes the body of docker's create request.
start_container() {
  local body
  body=$(create_container "$@") || { say "$1: $2: $body"; return 1; }
  docker_api "$1" POST "/containers/$2/start"
}

create_container() {
  local body
  body=$(jq -n --arg name "$2" --arg image "$3" --arg host "$1" --arg kubernetes "$kubernetes" '{
      Image: $image, Hostname: $host, Labels: {"io.rancher.rke.container.name": $name},
      HostConfig: {NetworkMode: "host", RestartPolicy: {Name: "always"}, Binds: [$kubernetes + ":/etc/kubernetes:z"]}
    } | '"$4")
  docker_api "$1" POST "/containers/create?name=$2" "$body"
}

# start_component HOST NAME ARGUMENT...
start_component() {
  local host=$1 name=$2 shape='.HostConfig.VolumesFrom = ["service-sidekick"]'
  shift 2
  shape+=" | .Entrypoint = $(jq -cn '["/opt/rke-tools/entrypoint.sh"] + $ARGS.positional' --args -- "$name" "$@")"
  case $name in
    kubelet | kube-proxy)
      shape+=' | .HostConfig += {Privileged: true, PidMode: "host", SecurityOpt: ["label=disable"]}'
      ;;
  esac
  if [[ $name == kubelet ]]; then
    shape+=' | .HostConfig.Binds += ["/etc/cni:/etc/cni:rw,z", "/opt/cni:/opt/cni:rw,z", "/var/lib/cni:/var/lib/cni:z",
      "/var/lib/calico:/var/lib/calico:z", "/etc/resolv.conf:/etc/resolv.conf", "/sys:/sys:rprivate",
      "/var/lib/docker:/var/lib/docker:rw,rslave,z", "'"$prefix/var/lib/kubelet:$prefix/var/lib/kubelet"':shared,z",
      "/var/lib/rancher:/var/lib/rancher:shared,z", "/var/run:/var/run:rw,rprivate", "/run:/run:rprivate",
      "/etc/ceph:/etc/ceph", "/dev:/host/dev:rprivate", "/var/log/containers:/var/log/containers:z",
      "/var/log/pods:/var/log/pods:z", "/usr:/host/usr:ro", "/etc:/host/etc:ro"]'
  fi
  start_container "$host" "$name" "$hyperkube_image" "$shape"
}

start_etcd() {
  local host=$1 address pair peer members=()
  address=$(address_of "$host")
  pair=$ssl/kube-etcd-${address//./-}
  for peer in "${etcd_hosts[@]}"; do members+=("etcd-$peer=https://$(address_of "$peer"):2380"); done
  on "$host" install -d -m 700 -o "$etcd_owner" -g "$etcd_owner" "$prefix/var/lib/etcd"
  start_container "$host" etcd "$etcd_image" "
    .HostConfig.Binds += [\"$prefix/var/lib/etcd:/var/lib/rancher/etcd/:z\"]
    | if $etcd_owner == 0 then . else .User = \"$etcd_owner:$etcd_owner\" end
    | .Env = [\"ETCDCTL_API=3\", \"ETCDCTL_CACERT=$ssl/kube-ca.pem\", \"ETCDCTL_CERT=$pair.pem\",
        \"ETCDCTL_KEY=$pair-key.pem\", \"ETCDCTL_ENDPOINTS=https://127.0.0.1:2379\"]
    | .Cmd = [\"/usr/local/bin/etcd\", \"--peer-client-cert-auth\", \"--client-cert-auth\",
        \"--initial-cluster-token=etcd-cluster-1\", \"--initial-cluster=$(IFS=,; echo "${members[*]}")\",
        \"--initial-cluster-state=new\", \"--initial-advertise-peer-urls=https://$address:2380\",
        \"--listen-peer-urls=https://0.0.0.0:2380\", \"--listen-client-urls=https://0.0.0.0:2379\",
        \"--advertise-client-urls=https://$address:2379,https://$address:4001\", \"--name=etcd-$host\",
        \"--data-dir=/var/lib/rancher/etcd/\", \"--heartbeat-interval=500\", \"--election-timeout=5000\",
        \"--trusted-ca-file=$ssl/kube-ca.pem\", \"--cert-file=$pair.pem\", \"--key-file=$pair-key.pem\",
        \"--peer-trusted-ca-file=$ssl/kube-ca.pem\", \"--peer-cert-file=$pair.pem\", \"--peer-key-file=$pair-key.pem\"]"
}

# The key that signs service account tokens: kube-apiserver's own before rke 0.2.
service_account_key() {
  case $1 in
    v0.1.17-legacy) echo "$ssl/kube-apiserver-key.pem" ;;
    *) echo "$ssl/kube-service-account-token-key.pem" ;;
  esac
}

start_kube_apiserver() {
  local host=$1 key peer servers=()
  key=$(service_account_key "$2")
  for peer in "${etcd_hosts[@]}"; do servers+=("https://$(address_of "$peer"):2379"); done
  start_component "$host" kube-apiserver --etcd-servers="$(IFS=,; echo "${servers[*]}")" --etcd-prefix=/registry \
    --etcd-cafile=$ssl/kube-ca.pem --etcd-certfile=$ssl/kube-node.pem --etcd-keyfile=$ssl/kube-node-key.pem \
    --bind-address=0.0.0.0 --secure-port=6443 --insecure-port=0 --storage-backend=etcd3 --allow-privileged=true \
    --tls-cert-file=$ssl/kube-apiserver.pem --tls-private-key-file=$ssl/kube-apiserver-key.pem \
    --client-ca-file=$ssl/kube-ca.pem --anonymous-auth=false --authorization-mode=Node,RBAC \
    --kubelet-client-certificate=$ssl/kube-apiserver.pem --kubelet-client-key=$ssl/kube-apiserver-key.pem \
    --requestheader-client-ca-file=$ssl/kube-apiserver-requestheader-ca.pem \
    --requestheader-allowed-names=kube-apiserver-proxy-client --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file=$ssl/kube-apiserver-proxy-client.pem \
    --proxy-client-key-file=$ssl/kube-apiserver-proxy-client-key.pem \
    --service-account-key-file="$key" --service-cluster-ip-range=10.43.0.0/16 --service-node-port-range=30000-32767 \
    --cloud-provider= --advertise-address="$(address_of "$host")" --profiling=false
}

start_kube_controller_manager() {
  start_component "$1" kube-controller-manager --v=2 --address=0.0.0.0 --leader-elect=true --cloud-provider= \
    --kubeconfig=$ssl/kubecfg-kube-controller-manager.yaml --root-ca-file=$ssl/kube-ca.pem \
    --service-account-private-key-file="$(service_account_key "$2")" --use-service-account-credentials=true \
    --allocate-node-cidrs=true --cluster-cidr=10.42.0.0/16 --service-cluster-ip-range=10.43.0.0/16
}

start_kube_scheduler() {
  start_component "$1" kube-scheduler --v=2 --address=0.0.0.0 --leader-elect=true --profiling=false \
    --kubeconfig=$ssl/kubecfg-kube-scheduler.yaml
}

start_kubelet() {
  start_component "$1" kubelet --v=2 --address=0.0.0.0 --read-only-port=0 --anonymous-auth=false \
    --authentication-token-webhook=true --hostname-override="$1" --kubeconfig=$ssl/kubecfg-kube-node.yaml \
    --client-ca-file=$ssl/kube-ca.pem --root-dir="$prefix/var/lib/kubelet" --cluster-dns=10.43.0.10 \
    --cluster-domain=cluster.local --cloud-provider= --cgroups-per-qos=True --fail-swap-on=false
}

# rke v0.1.17 binds it to 0.0.0.0, v0.2.8 to loopback: loopback is the harder case, so both layouts have it.
start_kube_proxy() {
  start_component "$1" kube-proxy --v=2 --healthz-bind-address=127.0.0.1 --cluster-cidr=10.42.0.0/16 \
    --hostname-override="$1" --kubeconfig=$ssl/kubecfg-kube-proxy.yaml
}

# start_containers HOST LAYOUT
start_containers() {
  local host=$1 layout=$2 targets
  ! is_etcd "$host" || start_etcd "$host"
  create_container "$host" service-sidekick "$rke_tools_image" \
    '.HostConfig = {NetworkMode: "none"} | .Cmd = ["/bin/bash"]' >/dev/null
  if is_control_plane "$host"; then
    start_kube_apiserver "$host" "$layout"
    start_kube_controller_manager "$host" "$layout"
    start_kube_scheduler "$host"
  else
    targets=CP_HOSTS=$(for peer in "${control_plane_hosts[@]}"; do address_of "$peer"; done | paste -sd,)
    start_container "$host" nginx-proxy "$rke_tools_image" \
      "del(.HostConfig.Binds) | .Entrypoint = [\"nginx-proxy\"] | .Cmd = [\"$targets\"] | .Env = [\"$targets\"]"
  fi
  start_kubelet "$host"
  start_kube_proxy "$host"
}

remove_containers() {
  local identities
  mapfile -t identities < <(on "$1" docker ps --all --quiet)
  ((${#identities[@]} == 0)) || on "$1" docker rm --force --volumes "${identities[@]}" >/dev/null
}

# restart_containers HOST NAME...
restart_containers() {
  local host=$1
  shift
  on "$host" docker restart --time 5 "$@" >/dev/null
}
