"""A fake of Google's metadata server and Secret Manager, over real HTTP on one port."""

import http.server
import json
import threading
from base64 import b64encode
from contextlib import contextmanager

from botapi.secrets.by_name import ENDPOINT, METADATA


class Google(http.server.ThreadingHTTPServer):
    """The metadata server and Secret Manager on one port."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.environ = {METADATA: self.host, ENDPOINT: f"http://{self.host}/"}
        self.secrets = {}
        self.token = {"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"}
        self.status = 200
        self.asked = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.answer()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self):
        google = self.server
        if self.path.startswith("/computeMetadata/v1/instance/service-accounts/default/token"):
            is_ours = self.headers.get("Metadata-Flavor") == "Google"
            return (200, google.token) if is_ours else (403, {})
        google.asked.append(self.path)
        if self.headers.get("Authorization") != "Bearer ya29.token":
            return 401, {"error": {"message": "who are you?"}}
        name = self.path.removeprefix("/v1/").removesuffix(":access")
        if google.status != 200:
            return google.status, {"error": {"message": "no"}}
        if name not in google.secrets:
            return 404, {"error": {"message": "not there"}}
        value = google.secrets[name]
        if value is None:
            return 200, b"<html>"
        return 200, {"name": name, "payload": {"data": b64encode(value).decode()}}

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    """A running one."""
    server = Google()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
