"""A token exchange (RFC 8693) on loopback, for tests: it answers what the test says."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl


class StsStub:
    """`asked` holds the forms it got. `answer(status, body, **headers)` says what comes next."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/token"
        self.asked = []
        self.types = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.grant()

    def grant(self, token="at-1", life_s=3600, **more):
        body = {"access_token": token, "token_type": "Bearer", "expires_in": life_s}
        self.answer(200, {**body, **more})

    def answer(self, status, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.reply = status, data, headers


@contextmanager
def sts_stub():
    """A stub that listens until the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            stub.asked.append(dict(parse_qsl(body.decode(), strict_parsing=True)))
            stub.types.append(self.headers["Content-Type"])
            stub.arrived.release()
            stub.gate.wait(10)
            status, data, headers = stub.reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = StsStub(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        stub.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
