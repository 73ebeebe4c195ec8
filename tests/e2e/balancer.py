"""A load balancer in the test's own process: each call goes to the next front end.

As nginx does by default: a front end that does not take the connection is passed over, a call
that broke off after it was sent is answered 502 and not sent again.
"""

import contextlib
import http.client
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
LIMIT_S = 60.0


class Balancer:
    """`ports` are those of the front ends; the list may be changed at any time."""

    def __init__(self, ports):
        self.ports = list(ports)
        self.served = Counter()
        self._turn = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.balancer = self
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def order(self):
        """The front ends, the one whose turn it is first."""
        with self._lock:
            self._turn += 1
            ports = self.ports
            first = self._turn % len(ports)
            return [*ports[first:], *ports[:first]]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def forward(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else None
        for port in self.server.balancer.order():
            front = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
            try:
                front.connect()
            except OSError:
                continue
            try:
                reply = self.asked(front, body)
            except (OSError, http.client.HTTPException):
                reply = (502, [], b"the front end broke off\n")
            finally:
                front.close()
            self.server.balancer.served[port] += 1
            break
        else:
            reply = (502, [], b"no front end\n")
        with contextlib.suppress(OSError):  # whoever asked has hung up
            self.answer(*reply)

    def asked(self, front, body):
        front.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                front.putheader(name, value)
        front.endheaders(body)
        reply = front.getresponse()
        return reply.status, reply.getheaders(), reply.read()

    def answer(self, status, headers, content):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = forward  # noqa: N815

    def log_message(self, *_args):
        """Nothing: the front ends have logs."""
