"""Storage is etcd, as an API server uses it: a list of members, one client pair that was loaded at the start."""

import base64
import collections
import http.client
import json
import threading
import time
import urllib.parse

from listener import client_context


class Unavailable(Exception):
    """No member has answered in time."""


def encode(text):
    return base64.b64encode(text.encode()).decode()


class Storage:
    """Asks the members in turn, beginning with the one that answered last; its connections stay open."""

    def __init__(self, servers, authority, certificate, key):
        self.members = [urllib.parse.urlsplit(server) for server in servers.split(",")]
        self.context = client_context(authority, certificate, key)
        self.idle = [collections.deque() for _ in self.members]
        self.preferred = 0
        self.lock = threading.Lock()

    def call(self, path, body, timeout=4.0):
        """Sends one request to the first member that takes it."""
        deadline = time.monotonic() + timeout
        first, reason = self.preferred, ""
        for turn in range(len(self.members)):
            member = (first + turn) % len(self.members)
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                answer = self.ask(member, path, body, min(left, timeout / 2))
                self.preferred = member
                return answer
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"{self.members[member].hostname}: {error}"
        raise Unavailable(f"etcdserver: {reason or 'request timed out'}")

    def ask(self, member, path, body, timeout):
        url = self.members[member]
        for _ in range(8):
            try:
                connection = self.idle[member].popleft()
            except IndexError:
                connection = http.client.HTTPSConnection(url.hostname, url.port, context=self.context)
            fresh = connection.sock is None
            connection.timeout = timeout
            try:
                if not fresh:
                    connection.sock.settimeout(timeout)
                connection.request("POST", path, json.dumps(body))
                response = connection.getresponse()
                data = response.read()
            except (ConnectionError, http.client.HTTPException):
                connection.close()
                if fresh:
                    raise
                continue
            except OSError:
                connection.close()
                raise
            self.idle[member].append(connection)
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {data[:200].decode(errors='replace')}")
            return json.loads(data)
        raise OSError("every connection is broken")

    def get(self, key, timeout=4.0):
        """Returns a value and its revision, or None."""
        found = self.call("/v3/kv/range", {"key": encode(key)}, timeout).get("kvs")
        return self.entry(found[0])[1:] if found else None

    def list(self, prefix):
        """Returns key, value and revision of everything beneath a prefix that ends with `/`."""
        question = {"key": encode(prefix), "range_end": encode(prefix[:-1] + "0")}
        return [self.entry(item) for item in self.call("/v3/kv/range", question).get("kvs", [])]

    @staticmethod
    def entry(item):
        value = json.loads(base64.b64decode(item["value"]))
        return base64.b64decode(item["key"]).decode(), value, int(item["mod_revision"])

    def put(self, key, value, revision=None):
        """Writes a value, where a revision is given only over that one (0: nothing there yet).

        Returns the new revision, or None where another was found.
        """
        change = {"success": [{"request_put": {"key": encode(key), "value": encode(json.dumps(value))}}]}
        if revision is not None:
            compare = {"key": encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
            change["compare"] = [compare]
        answer = self.call("/v3/kv/txn", change)
        return int(answer["header"]["revision"]) if answer.get("succeeded") else None
