"""A small identity provider over HTTP on loopback: discovery, code flow with PKCE, keys and logout."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import JWSRegistry

from benchmarks.harness.serving import serving

CLIENT_ID: Final = "console"
CLIENT_SECRET: Final = "a secret of the console"


def make_key(key_id: str) -> RSAKey:
    """Return a new private key."""
    return RSAKey.generate_key(2048, {"kid": key_id}, private=True)


_KEY: Final = make_key("one")
_FORGED: Final = make_key("one")


class Provider:
    """An identity provider that logs every visitor in as `person`. Tests set its faults."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "4711", "preferred_username": "anna", "groups": ["staff", "ops"]}
        self.claims: dict[str, Any] = {}
        """Claims that replace the valid ones in all tokens; None leaves a claim out."""
        self.metadata: dict[str, Any] = {}
        """Values that replace the valid ones in the discovery document."""
        self.issuer = ""
        """Issuer in the discovery document."""
        self.signed_by = "key"
        """`key`, `forged`, `none`, or `secret`, the client's secret as a symmetric key."""
        self.key, self.key_id = _KEY, "one"
        self.broken: set[str] = set()
        """Paths that answer with status 500."""
        self.odd_keys: list[object] | None = []
        """Keys before the usable one; None is a document without keys."""
        self.requests: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = self.issuer = f"http://127.0.0.1:{self.server.server_port}"

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document."""
        paths = {"authorization": "authorize", "token": "token", "end_session": "logout"}
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.url}/keys",
            # It also offers algorithms that a careful client rejects.
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            **{f"{name}_endpoint": f"{self.url}/{path}" for name, path in paths.items()},
            **self.metadata,
        }

    def keys(self) -> dict[str, Any]:
        """Return the document of public keys."""
        return {} if self.odd_keys is None else {"keys": [*self.odd_keys, self.key.as_dict(private=False)]}

    def authorize(self, query: Mapping[str, str]) -> str:
        """Log the visitor in. Return the address of the redirect."""
        assert query["client_id"] == CLIENT_ID
        assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = dict(query)
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, authorization: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Redeem a code, at most once. Return the status and the document of the answer."""
        credentials = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        if credentials not in (f"{CLIENT_ID}:{CLIENT_SECRET.replace(' ', '%20')}", f"{CLIENT_ID}:{CLIENT_SECRET}"):
            return 401, {"error": "invalid_client"}
        query = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if query is None or challenge.decode().rstrip("=") != query["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        access = secrets.token_urlsafe(16)
        return 200, {"access_token": access, "token_type": "Bearer", "id_token": self._id_token(query["nonce"])}

    def logout_token(self, typ: str | None = "logout+jwt", **claims: object) -> str:
        """Return a token that ends the person's logins; `claims` replace the valid ones, None leaves one out."""
        events: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
        valid = {"jti": secrets.token_hex(8), "events": events, "sub": self.person["sub"]}
        return self._signed(valid | claims, {} if typ is None else {"typ": typ})

    def _id_token(self, nonce: str) -> str:
        return self._signed({"nonce": nonce, **self.person}, {})

    def _signed(self, own: Mapping[str, Any], header: Mapping[str, str]) -> str:
        now_s = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT_ID, "iat": now_s, "exp": now_s + 300, **own}
        claims = {name: value for name, value in (claims | self.claims).items() if value is not None}
        if self.signed_by == "none":
            parts = ({"alg": "none"}, claims)
            head, body = (base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts)
            return f"{head}.{body}."
        if self.signed_by == "secret":
            key = OctKey.import_key(CLIENT_SECRET, {"kid": "one"})
            registry = JWSRegistry(algorithms=["HS256"])
            return jwt.encode({"alg": "HS256", "kid": "one", **header}, claims, key, registry=registry)
        return jwt.encode(
            {"alg": "RS256", "kid": self.key_id, **header}, claims, _FORGED if self.signed_by == "forged" else self.key
        )


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
            """Log nothing."""

        def do_GET(self) -> None:
            self._serve({})

        def do_POST(self) -> None:
            self._serve(_values(self.rfile.read(int(self.headers["content-length"])).decode()))

        def _serve(self, form: Mapping[str, str]) -> None:
            parts = urlsplit(self.path)
            provider.requests.append(parts.path)
            if parts.path in provider.broken:
                self._answer(500, {})
            elif parts.path == "/.well-known/openid-configuration":
                self._answer(200, provider.discovery())
            elif parts.path == "/keys":
                self._answer(200, provider.keys())
            elif parts.path == "/text":
                self._answer(200, {}, body=b"no JSON")
            elif parts.path == "/token":
                self._answer(*provider.token(self.headers.get("authorization", ""), form))
            elif parts.path == "/authorize":
                self._answer(303, {}, location=provider.authorize(_values(parts.query)))
            else:
                self._answer(404, {})

        def _answer(self, status: int, document: Mapping[str, Any], body: bytes = b"", **headers: str) -> None:
            body = body or json.dumps(document).encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _values(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query).items()}


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Run a provider for the block."""
    provider = Provider()
    with serving(provider.server):
        yield provider
