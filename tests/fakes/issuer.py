"""Makers of real tokens: an OpenID Connect issuer, and a signer of machine tokens.

Keys and signatures are real; only the people behind them are not.
"""

import contextlib
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from urllib.parse import parse_qsl

import jwt
from botpb import machine_token_pb2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

NOW_S = 1_772_604_367
DISCOVERY = "/.well-known/openid-configuration"


@cache
def rsa_key(number=0):
    """A private RSA key; equal numbers give the same one."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def private_key(algorithm, number=0):
    """A private key for a signature algorithm."""
    if algorithm.startswith("RS"):
        return rsa_key(number)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def pem_of(key):
    """The public half as PEM text."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Issuer:
    """Signs identity tokens; `jwks()` is what it publishes."""

    def __init__(self, url="https://id.example", number=0):
        self.url = url
        self.keys = {"k1": ("RS256", private_key("RS256", number))}

    def add(self, key_id, algorithm, number=1):
        self.keys[key_id] = (algorithm, private_key(algorithm, number))

    def jwks(self):
        entries = []
        for key_id, (algorithm, key) in self.keys.items():
            made = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
            entries.append({**made, "kid": key_id, "use": "sig"})
        return {"keys": entries}

    def claims(self, now_s=NOW_S, **more):
        claims = {"iss": self.url, "sub": "robot", "iat": now_s, "exp": now_s + 600}
        return {name: value for name, value in {**claims, **more}.items() if value is not None}

    def token(self, key_id="k1", now_s=NOW_S, headers=None, **claims):
        algorithm, key = self.keys[key_id]
        said = {"kid": key_id, **(headers or {})}
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(self.claims(now_s, **claims), key, algorithm, said)

    def account_token(self, email="robot@id.example", aud="https://skep.example", **more):
        return self.token(**{"email": email, "email_verified": True, "aud": aud, **more})

    def vm_token(self, instance="vm1", project="proj", aud="app.appspot.com", **more):
        engine = {"instance_name": instance, "project_id": project, "zone": "z"}
        return self.token(**{"aud": aud, "google": {"compute_engine": engine}, **more})


class MachineSigner:
    """Signs machine tokens."""

    def __init__(self, key_id="ts", number=0):
        self.key_id = key_id
        self.key = rsa_key(number)

    @property
    def pem(self):
        return pem_of(self.key)

    def token(self, fqdn="vm1.example", *, ca_id=1, issued_at=NOW_S, lifetime=600, **more):
        body = machine_token_pb2.MachineTokenBody(
            machine_fqdn=fqdn, issued_at=issued_at, lifetime=lifetime, ca_id=ca_id, cert_sn=7
        ).SerializeToString()
        return self.envelope(body, **more)

    def envelope(self, body, **more):
        values = {
            "token_body": body,
            "key_id": self.key_id,
            "rsa_sha256": self.key.sign(body, padding.PKCS1v15(), SHA256()),
            **more,
        }
        raw = machine_token_pb2.MachineTokenEnvelope(**values).SerializeToString()
        return b64encode(raw).decode().rstrip("=")


def self_signed(folder):
    """Files with a certificate for 127.0.0.1 and its key."""
    key = rsa_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    files = folder / "issuer.pem", folder / "issuer.key"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


class IssuerServer(Issuer):
    """An issuer with an HTTP server on loopback; counts what it was asked.

    `answers` replaces what a path is answered: (status, headers, body). With the files of
    `self_signed` it speaks TLS.
    """

    def __init__(self, tls_files=()):
        super().__init__()
        self.asked = []
        self.answers = {}
        self.codes = {}
        """What a code is good for: the parameters of the authorization, and who signed in."""
        self.client_secret = ""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, headers, body = outer.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def do_POST(self):
                outer.asked.append(self.path)
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, body = outer.exchange(dict(parse_qsl(form)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls_files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls_files)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "https" if tls_files else "http"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, path):
        if path in self.answers:
            return self.answers[path]
        if path == DISCOVERY:
            found = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
            }
            return 200, {}, json.dumps(found).encode()
        return (200, {}, json.dumps(self.jwks()).encode()) if path == "/keys" else (404, {}, b"")

    def authorize(self, location, **claims):
        """Somebody signs in at `location`; the parameters that their browser comes back with."""
        url, _, query = location.partition("?")
        asked = dict(parse_qsl(query))
        assert url == f"{self.url}/authorize"
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = f"code{len(self.codes)}"
        self.codes[code] = asked, claims
        return {"state": asked["state"], "code": code}

    def exchange(self, form):
        """A code for an identity token, once, to whom it was given (RFC 6749 4.1.3, RFC 7636)."""
        asked, claims = self.codes.pop(form.get("code"), ({}, {}))
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        is_right = (
            form["grant_type"] == "authorization_code"
            and asked.get("client_id") == form["client_id"]
            and asked["redirect_uri"] == form["redirect_uri"]
            and urlsafe_b64encode(challenge).decode().rstrip("=") == asked["code_challenge"]
            and form.get("client_secret", "") == self.client_secret
        )
        if not is_right:
            return 400, b'{"error": "invalid_grant"}'
        said = {"aud": asked["client_id"], "nonce": asked["nonce"], "email_verified": True}
        token = self.token(**{**said, "email": "alice@example.com", **claims})
        return 200, json.dumps({"id_token": token, "access_token": "x"}).encode()

    def close(self):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
