"""Stands in for the Kubernetes components that RKE starts from its hyperkube image.

Listens where the real one listens, serves the certificate that lay on disk when it started until it is restarted,
answers /healthz, and refuses to start on pairs that are missing or do not match, as the real one does.
"""

import http.server
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

OPTIONS = dict(
    argument[2:].split("=", 1) if "=" in argument else (argument[2:], "true")
    for argument in sys.argv[2:]
    if argument.startswith("--")
)


def fail(message):
    print(f"{sys.argv[1]}: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def load(context, certificate, key):
    """Loads a pair or ends the process."""
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        fail(f"{certificate}: {error}")
    return context


def require_pair(certificate, key):
    load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)


def require_kubeconfig():
    """Loads the client pair that the component's kubeconfig names."""
    fields = {}
    with open(OPTIONS["kubeconfig"], encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.strip().partition(": ")
            fields[name] = value
    require_pair(fields["client-certificate"], fields["client-key"])


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One listener; a handshake happens in its connection's own thread, so that a silent client blocks nobody."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address, port, context=None, anonymous=True):
        self.context = context
        self.anonymous = anonymous
        super().__init__((address, port), Health)

    def handle_error(self, request, client_address):
        print(f"{sys.argv[1]}: {client_address[0]}: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


class Health(http.server.BaseHTTPRequestHandler):
    """Answers /healthz, and 401 to whoever has shown no certificate of the cluster's CA where that is asked for."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def setup(self):
        if self.server.context:
            self.request.settimeout(self.timeout)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self):
        if not self.server.anonymous and not self.request.getpeercert():
            self.answer(401, "Unauthorized")
        elif self.path.split("?")[0] in ("/healthz", "/livez", "/readyz"):
            self.answer(200, "ok")
        else:
            self.answer(404, "404 page not found")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        pass


def server_context(certificate, key):
    context = load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    if "client-ca-file" in OPTIONS:
        context.load_verify_locations(OPTIONS["client-ca-file"])
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def wait_for_etcd():
    """Ends the process where no etcd member takes our client certificate, as a real API server does after a while."""
    context = ssl.create_default_context(cafile=OPTIONS["etcd-cafile"])
    load(context, OPTIONS["etcd-certfile"], OPTIONS["etcd-keyfile"])
    deadline = time.monotonic() + 20
    reason = "no etcd server was named"
    while time.monotonic() < deadline:
        for url in map(urllib.parse.urlsplit, OPTIONS["etcd-servers"].split(",")):
            try:
                with socket.create_connection((url.hostname, url.port), timeout=3) as plain:
                    with context.wrap_socket(plain, server_hostname=url.hostname) as stream:
                        stream.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                        if b'"true"' in stream.read(4096) + stream.read(4096):
                            return
                        reason = f"{url.hostname} is not healthy"
            except (OSError, ssl.SSLError) as error:
                reason = f"{url.hostname}: {error}"
        time.sleep(0.5)
    fail(f"unable to create storage backend: {reason}")


def kube_apiserver():
    context = server_context(OPTIONS["tls-cert-file"], OPTIONS["tls-private-key-file"])
    require_pair(OPTIONS["kubelet-client-certificate"], OPTIONS["kubelet-client-key"])
    require_pair(OPTIONS["proxy-client-cert-file"], OPTIONS["proxy-client-key-file"])
    ssl.create_default_context(cafile=OPTIONS["requestheader-client-ca-file"])
    with open(OPTIONS["service-account-key-file"], encoding="ascii"):
        pass
    wait_for_etcd()
    return [Server(OPTIONS["bind-address"], int(OPTIONS["secure-port"]), context, anonymous=False)]


def kube_controller_manager():
    require_kubeconfig()
    return [Server(OPTIONS["address"], 10252)]


def kube_scheduler():
    require_kubeconfig()
    return [Server(OPTIONS["address"], 10251)]


def kube_proxy():
    require_kubeconfig()
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


def kubelet():
    require_kubeconfig()
    folder = OPTIONS["root-dir"] + "/pki"
    certificate, key = f"{folder}/kubelet.crt", f"{folder}/kubelet.key"
    if not (os.path.exists(certificate) and os.path.exists(key)):
        make_serving_pair(folder, OPTIONS["hostname-override"])
    return [
        Server(OPTIONS["address"], 10250, server_context(certificate, key), anonymous=False),
        Server("127.0.0.1", 10248),
    ]


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
