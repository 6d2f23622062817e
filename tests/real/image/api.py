"""The API knows just enough of Kubernetes: health, version, nodes, and ConfigMaps and Secrets of kube-system.

It lies in the real etcd, so that all API servers agree and none answers without a leader.
"""

import json
import re
import threading
import time

from listener import OPTIONS, Health
from storage import Storage, Unavailable

# A node that has not reported for so long is not Ready; a real cluster waits 40 s.
SILENCE = 10
HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
KINDS = {"configmaps": "ConfigMap", "secrets": "Secret"}
NODE = re.compile(r"/api/v1/nodes/([^/]+)(?:/status)?$")
OBJECT = re.compile(r"/api/v1/namespaces/([^/]+)/(configmaps|secrets)(?:/([^/]+))?$")


class State:
    """What the API server keeps: its storage, and whether that has answered lately."""

    def __init__(self):
        self.storage = Storage(
            *(OPTIONS[f"etcd-{name}"] for name in ("servers", "cafile", "certfile", "keyfile")),
        )
        self.healthy = False
        self.reason = "no etcd server was named"

    def look(self):
        """Asks etcd for a key; without a leader there is no answer."""
        try:
            self.storage.get("/registry/health", timeout=2.0)
            self.healthy = True
        except Unavailable as error:
            self.healthy, self.reason = False, str(error)

    def keep_looking(self):
        while True:
            self.look()
            time.sleep(0.2)

    def wait(self, seconds):
        """Returns whether etcd has taken our client certificate within some seconds."""
        deadline = time.monotonic() + seconds
        self.look()
        while not self.healthy and time.monotonic() < deadline:
            time.sleep(0.5)
            self.look()
        threading.Thread(target=self.keep_looking, daemon=True).start()
        return self.healthy


class Api(Health):
    """Answers a client of the API server by who it is."""

    state = None

    def serve(self, path, body, client):
        try:
            if path in HEALTH_PATHS:
                healthy = self.state.healthy
                self.answer(200 if healthy else 500, "ok" if healthy else "[-]etcd failed: reason withheld\nhealthz check failed\n")
            elif path == "/version":
                self.answer(200, {"major": "1", "minor": "11", "gitVersion": "v1.11.6", "platform": "linux/amd64"})
            elif path == "/api/v1/nodes":
                self.nodes(client)
            elif NODE.match(path):
                self.node(NODE.match(path)[1], body, client)
            elif OBJECT.match(path):
                self.object(*OBJECT.match(path).groups(), body, client)
            else:
                self.refuse(404, "NotFound", "the server could not find the requested resource")
        except Unavailable as error:
            self.refuse(500, "InternalError", str(error))
        except (ValueError, KeyError) as error:
            self.refuse(400, "BadRequest", f"{type(error).__name__}: {error}")

    def allowed(self, client, *organizations):
        if client[1] & {"system:masters", *organizations}:
            return True
        self.refuse(403, "Forbidden", f'User "{client[0]}" cannot {self.command.lower()} {self.path}')
        return False

    def nodes(self, client):
        if self.allowed(client, "system:nodes"):
            items = [self.with_condition(*entry) for entry in self.state.storage.list("/registry/minions/")]
            self.answer(200, {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items})

    def node(self, name, body, client):
        """A kubelet reports, or somebody reads one node."""
        key = f"/registry/minions/{name}"
        if not self.allowed(client, "system:nodes"):
            return
        if self.command == "PUT":
            # When it came is what counts, not what it says.
            node = {**json.loads(body), "reported": time.time()}
            self.answer(200, self.with_condition(key, node, self.state.storage.put(key, node)))
            return
        found = self.state.storage.get(key)
        if found:
            self.answer(200, self.with_condition(key, *found))
        else:
            self.refuse(404, "NotFound", f'nodes "{name}" not found')

    @staticmethod
    def with_condition(_key, node, revision):
        silent = time.time() - node.pop("reported") > SILENCE
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "lastHeartbeatTime": moment, "lastTransitionTime": moment}
        condition |= (
            {"status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
            if silent
            else {"status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
        )
        node["metadata"]["resourceVersion"] = str(revision)
        node.setdefault("status", {})["conditions"] = [condition]
        return node

    def object(self, namespace, plural, name, body, client):
        """Reads, makes or replaces a ConfigMap or a Secret."""
        organizations = ("system:nodes",) if self.command == "GET" else ()
        if not self.allowed(client, *organizations):
            return
        storage, prefix = self.state.storage, f"/registry/{plural}/{namespace}/"
        if self.command == "GET" and not name:
            items = [self.versioned(value, revision) for _, value, revision in storage.list(prefix)]
            self.answer(200, {"kind": f"{KINDS[plural]}List", "apiVersion": "v1", "metadata": {}, "items": items})
            return
        if self.command == "GET":
            found = storage.get(prefix + name)
            if found:
                self.answer(200, self.versioned(*found))
            else:
                self.refuse(404, "NotFound", f'{plural} "{name}" not found')
            return
        value = json.loads(body)
        if value["kind"] != KINDS[plural] or value["metadata"]["name"] != (name or value["metadata"]["name"]):
            raise ValueError("the object is not what the path names")
        version = value["metadata"].pop("resourceVersion", None)
        if self.command == "POST":
            self.write(prefix + value["metadata"]["name"], value, 0, ("AlreadyExists", f'{plural} "{name}" already exists'))
        elif storage.get(prefix + name) is None:
            self.refuse(404, "NotFound", f'{plural} "{name}" not found')
        else:
            message = f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified'
            self.write(prefix + name, value, int(version) if version else None, ("Conflict", message))

    def write(self, key, value, revision, conflict):
        written = self.state.storage.put(key, value, revision)
        if written is None:
            self.refuse(409, *conflict)
        else:
            self.answer(201 if self.command == "POST" else 200, self.versioned(value, written))

    @staticmethod
    def versioned(value, revision):
        value["metadata"]["resourceVersion"] = str(revision)
        return value
