"""A client that writes, for the scripts beside this one."""

import http.client
import random
import sys
import time
from collections import Counter


def answers(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False


class Client:
    """A client that repeats each request until it has a response other than 503."""

    def __init__(self, ports, token):
        self.ports = ports
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.connection = None
        self.outcomes = Counter()

    def send(self, method, path, body=None, **headers):
        """The response, and whether an earlier attempt may have taken effect."""
        is_unknown = False
        for _ in range(2_000):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", random.choice(self.ports), timeout=30)
                self.connection.request(method, path, body, {**self.headers, **headers})
                response = self.connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[type(error).__name__] += 1
                self.connection, is_unknown = None, True
                time.sleep(random.random() / 20)
                continue
            self.outcomes[response.status] += 1
            if response.status == 503:
                is_unknown |= b"; nothing was changed" not in content
                time.sleep(random.random() / 10)
            elif response.status == 409 and response.headers["Retry-After"]:
                time.sleep(random.random() / 10)
            else:
                return response, content, is_unknown
        sys.exit("a request has no response after 2,000 attempts")
