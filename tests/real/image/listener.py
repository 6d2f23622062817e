"""A listener answers HTTP as the components do, and knows who asks: the client certificate, judged after the handshake.

As the real ones (Go's RequestClientCert), it lets every certificate through the handshake and answers 401 to one that has
expired, is of another authority or is missing. Python's ssl breaks the handshake instead and has no switch for it, so
OpenSSL's own verification is wrapped here through ctypes.
"""

import ctypes
import http.server
import json
import os
import socketserver
import ssl
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


def client_context(authority, certificate, key):
    """What a client of the cluster loads when it starts, and keeps until it ends."""
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        fail(f"{authority}: {error}")
    return load(context, certificate, key)


# A handshake happens in its connection's own thread, and OpenSSL calls back there.
handshake = threading.local()

VERIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def judge_later(context):
    """Lets every client certificate through, and leaves what OpenSSL thinks of it in `handshake.verified`."""
    crypto, tls = ctypes.CDLL("libcrypto.so.3"), ctypes.CDLL("libssl.so.3")
    verify = crypto.X509_verify_cert
    verify.argtypes = [ctypes.c_void_p]
    tls.SSL_CTX_get_verify_mode.argtypes = [ctypes.c_void_p]
    tls.SSL_CTX_set_cert_verify_callback.argtypes = [ctypes.c_void_p, VERIFY, ctypes.c_void_p]

    def let_through(store, _):
        handshake.verified = verify(store) == 1
        return 1

    # The first field of CPython's object is OpenSSL's own.
    own = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if tls.SSL_CTX_get_verify_mode(own) != ssl.CERT_OPTIONAL:
        fail("this Python keeps OpenSSL's context elsewhere")
    context.let_through = VERIFY(let_through)
    tls.SSL_CTX_set_cert_verify_callback(own, context.let_through, None)
    # A resumed session would not be verified again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def server_context(certificate, key):
    context = load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    if "client-ca-file" in OPTIONS:
        context.load_verify_locations(OPTIONS["client-ca-file"])
        context.verify_mode = ssl.CERT_OPTIONAL
        judge_later(context)
    return context


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One listener; a handshake happens in its connection's own thread, so that a silent client blocks nobody."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address, port, context=None, handler=None):
        self.context = context
        super().__init__((address, port), handler or Health)

    def handle_error(self, request, client_address):
        print(f"{sys.argv[1]}: {client_address[0]}: {sys.exc_info()[1]}", file=sys.stderr, flush=True)


class Health(http.server.BaseHTTPRequestHandler):
    """Answers /healthz, over TLS only to who has shown a certificate of the cluster's CA."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self):
        handshake.verified = False
        if self.server.context:
            self.request.settimeout(self.timeout)
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def who(self):
        """Returns common name and organizations of the client, or None for whoever is not known."""
        certificate = self.request.getpeercert() if handshake.verified else None
        if not certificate or ssl.cert_time_to_seconds(certificate["notAfter"]) < time.time():
            return None
        names = [pair for part in certificate["subject"] for pair in part]
        organizations = {value for name, value in names if name == "organizationName"}
        return dict(names).get("commonName", ""), organizations

    def do_GET(self):
        self.dispatch()

    def do_PUT(self):
        self.dispatch()

    def do_POST(self):
        self.dispatch()

    def dispatch(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        client = ("", set())
        if self.server.context and "client-ca-file" in OPTIONS:
            client = self.who()
        if client is None:
            self.refuse(401, "Unauthorized", "Unauthorized")
        else:
            self.serve(urllib.parse.urlsplit(self.path).path, body, client)

    def serve(self, path, _body, _client):
        if path in ("/healthz", "/livez", "/readyz"):
            self.answer(200, "ok")
        else:
            self.answer(404, "404 page not found")

    def refuse(self, code, reason, message):
        """Answers with a Status, as Kubernetes does."""
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.answer(code, {**status, "message": message, "reason": reason, "code": code})

    def answer(self, status, body):
        kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass
