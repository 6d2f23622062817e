"""Stands in for the Kubernetes components that RKE starts from its hyperkube image.

Listens where the real one listens, serves the certificate that lay on disk when it started until it is restarted, keeps
the client pair that it started with, and refuses to start on pairs that are missing or do not match, as the real one does.
"""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

# Isolated Python looks for modules in its own places only.
sys.path.insert(0, os.path.dirname(__file__))

from api import Api, State  # noqa: E402
from listener import OPTIONS, Server, client_context, fail, load, server_context  # noqa: E402

# A real kubelet reports every 10 s.
REPORT_INTERVAL = 2


def require_pair(certificate, key):
    load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)


def kubeconfig():
    """Loads the client pair that the component's kubeconfig names; returns it with the API server's address."""
    fields = {}
    with open(OPTIONS["kubeconfig"], encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.strip().partition(": ")
            fields[name] = value.strip('"')
    context = client_context(fields["certificate-authority"], fields["client-certificate"], fields["client-key"])
    return context, urllib.parse.urlsplit(fields["server"])


def start_up():
    """Takes as long to start as the host is told to: a real API server needs some ten seconds, this one a tenth of one."""
    try:
        with open("/etc/kubernetes/start-seconds", encoding="ascii") as seconds:
            time.sleep(float(seconds.read()))
    except FileNotFoundError:
        pass


def kube_apiserver():
    start_up()
    context = server_context(OPTIONS["tls-cert-file"], OPTIONS["tls-private-key-file"])
    require_pair(OPTIONS["kubelet-client-certificate"], OPTIONS["kubelet-client-key"])
    require_pair(OPTIONS["proxy-client-cert-file"], OPTIONS["proxy-client-key-file"])
    ssl.create_default_context(cafile=OPTIONS["requestheader-client-ca-file"])
    with open(OPTIONS["service-account-key-file"], encoding="ascii"):
        pass
    Api.state = State()
    # As a real one does after a while where no etcd member takes its client certificate.
    if not Api.state.wait(20):
        fail(f"unable to create storage backend: {Api.state.reason}")
    return [Server(OPTIONS["bind-address"], int(OPTIONS["secure-port"]), context, Api)]


def kube_controller_manager():
    kubeconfig()
    return [Server(OPTIONS["address"], 10252)]


def kube_scheduler():
    kubeconfig()
    return [Server(OPTIONS["address"], 10251)]


def kube_proxy():
    kubeconfig()
    return [Server(OPTIONS["healthz-bind-address"], 10256)]


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stderr=subprocess.DEVNULL)


def make_serving_pair(folder, host):
    """Makes kubelet's own serving certificate: one year, signed by an authority that is forgotten at once."""
    os.makedirs(folder, mode=0o755, exist_ok=True)
    moment = int(time.time())
    new = f"{folder}/new"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", f"/CN={host}-ca@{moment}"),
        *("-addext", "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign", "-config", "/dev/null"),
        *("-addext", "basicConstraints=critical,CA:true", "-keyout", f"{new}-ca.key", "-out", f"{new}-ca.crt"),
    )
    openssl(
        *("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}@{moment}", "-config", "/dev/null"),
        *("-keyout", f"{new}.pkcs8", "-out", f"{new}.csr"),
    )
    with open(f"{new}.extensions", "w", encoding="ascii") as file:
        file.write(f"subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature,keyEncipherment\n")
    openssl(
        *("x509", "-req", "-in", f"{new}.csr", "-CA", f"{new}-ca.crt", "-CAkey", f"{new}-ca.key", "-set_serial", "2"),
        *("-days", "365", "-extfile", f"{new}.extensions", "-out", f"{new}.crt"),
    )
    openssl("rsa", "-traditional", "-in", f"{new}.pkcs8", "-out", f"{folder}/kubelet.key")
    with open(f"{folder}/kubelet.crt", "w", encoding="ascii") as chain:
        for part in (f"{new}.crt", f"{new}-ca.crt"):
            with open(part, encoding="ascii") as file:
                chain.write(file.read())
    os.chmod(f"{folder}/kubelet.key", 0o600)
    os.chmod(f"{folder}/kubelet.crt", 0o644)
    for name in ("-ca.key", "-ca.crt", ".pkcs8", ".csr", ".extensions", ".crt"):
        os.unlink(new + name)


def report(context, server):
    """Tells an API server every few seconds that the node is there."""
    name = OPTIONS["hostname-override"]
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    node = json.dumps({"kind": "Node", "apiVersion": "v1", "metadata": metadata, "spec": {}})
    connection = http.client.HTTPSConnection(server.hostname, server.port, timeout=5, context=context)
    complaint = ""
    while True:
        try:
            connection.request("PUT", f"/api/v1/nodes/{name}/status", node)
            answer = connection.getresponse()
            said = f"{answer.status} {answer.read()[:200]}" if answer.status != 200 else answer.read() and ""
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            said = str(error)
        if said and said != complaint:
            print(f"kubelet: unable to update node status: {said}", file=sys.stderr, flush=True)
        complaint = said
        time.sleep(REPORT_INTERVAL)


def kubelet():
    client, server = kubeconfig()
    folder = OPTIONS["root-dir"] + "/pki"
    certificate = OPTIONS.get("tls-cert-file", f"{folder}/kubelet.crt")
    key = OPTIONS.get("tls-private-key-file", f"{folder}/kubelet.key")
    if "tls-cert-file" not in OPTIONS and not (os.path.exists(certificate) and os.path.exists(key)):
        make_serving_pair(folder, OPTIONS["hostname-override"])
    servers = [
        Server(OPTIONS["address"], 10250, server_context(certificate, key)),
        Server("127.0.0.1", 10248),
    ]
    threading.Thread(target=report, args=(client, server), daemon=True).start()
    return servers


COMPONENTS = {
    "kube-apiserver": kube_apiserver,
    "kube-controller-manager": kube_controller_manager,
    "kube-scheduler": kube_scheduler,
    "kube-proxy": kube_proxy,
    "kubelet": kubelet,
}


def main():
    # The first process of a container gets no default handling of signals.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if sys.argv[1] not in COMPONENTS:
        fail("no such component")
    for server in COMPONENTS[sys.argv[1]]():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"{sys.argv[1]}: listening", flush=True)
    while True:
        signal.pause()


main()
