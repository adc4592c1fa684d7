"""Logins by OpenID Connect: the code flow with PKCE, state and nonce, and the logout at the provider."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import Token

from consumers.console.access.login_settings import OpenIdSettings, is_protected, read_secret
from consumers.console.access.openid_logout import LoggedOut, LogoutTokens
from consumers.console.access.pending import PendingLogins
from consumers.console.access.private_lines import NAME
from consumers.console.access.provider_places import ProviderPlaces
from consumers.console.access.refusal import RefusedLoginError
from consumers.console.access.rights import Person
from schemas.errors import ConfigError
from schemas.transport.http import client_tls

BEGIN: Final = "/login/openid"
DONE: Final = "/login/openid/done"
LOGOUT: Final = "/login/openid/logout"
"""Path to which the provider sends logout tokens."""
_KNOWN_S: Final = 3600.0
"""Seconds for which the provider's discovery document and keys are remembered."""
_REFETCH_S: Final = 30.0
"""Minimum seconds between two readings of the keys that tokens with an unknown key id cause."""
MOST_LOGOUTS: Final = 64
"""Maximum logout tokens that wait for the provider's keys."""
_ANSWER_S: Final = 8.0
"""Seconds for all answers of the provider in one login."""
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures by a provider's private key. Neither `none` nor a shared secret proves who has signed."""


@dataclass(frozen=True)
class LoggedIn:
    """The outcome of a login."""

    person: Person
    subject: str
    """The provider's unchangeable id of the person."""
    sid: str
    """The provider's id of this login; empty if it gives none."""
    id_token: str
    then: str
    """Path of the page that the visitor wanted."""
    logouts_before: int = 0
    """Number of accepted logout tokens when the visitor came back from the provider."""


class OpenIdLogin:
    """Logins at one provider."""

    def __init__(
        self,
        settings: OpenIdSettings,
        clock_s: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Read the secret. Raises ConfigError for a file that cannot be read."""
        self._settings = settings
        self._clock_s = clock_s
        self._now_s = now_s
        self._pending = PendingLogins(clock_s)
        self._logouts = LogoutTokens(settings, now_s)
        self._places = ProviderPlaces(clock_s)
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._known_until_s = 0.0
        self._refetch_from_s = -math.inf
        self._reading_keys = asyncio.Lock()
        self._logging_out = asyncio.Lock()
        self._logouts_waiting = 0
        file = settings.client_secret_file
        self._secret = read_secret(file, "openid.client_secret_file") if file is not None else None
        try:
            self._tls = client_tls(settings.ca_file)
        except OSError as error:
            raise ConfigError(f"openid.ca_file: expected a file of authorities, got {error}. Correct it.") from None

    async def begin(self, then: str, address: str) -> tuple[str, str]:
        """Return the provider's URL for a new login, and the browser's cookie. Raises RefusedLoginError.

        `address` is the visitor's.
        """
        pending, cookie = self._pending.begin(then)
        async with self._provider(self._places.held(address)) as client:
            metadata = await self._discovered(client)
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=pending.state,
                nonce=pending.nonce,
                code_verifier=pending.verifier,
            )
        return str(url), cookie

    async def finish(self, answer: Mapping[str, str], cookie: str, address: str) -> LoggedIn:
        """Check the provider's answer to the login that a cookie began. Raises RefusedLoginError."""
        logouts_before = self._logouts.accepted
        pending = self._pending.find(cookie, answer.get("state", ""))
        if pending is None:
            raise RefusedLoginError("state: expected a login that this browser began a moment ago. Log in again.")
        if answer.get("iss", self._settings.issuer) != self._settings.issuer:
            raise RefusedLoginError(f"iss: expected {self._settings.issuer}, got another provider")
        if "code" not in answer:
            raise RefusedLoginError(f"provider: expected a code, got {answer.get('error', 'none')[:80]!r}")
        async with self._provider(self._places.held(address)) as client:
            self._pending.use_up(pending)
            metadata = await self._discovered(client)
            try:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=answer["code"], code_verifier=pending.verifier
                )
            except OAuthError as error:
                raise RefusedLoginError(f"provider: expected a token, got {str(error.error)[:80]!r}") from None
            id_token = str(token.get("id_token", ""))
            claims = await self._claims(client, id_token, pending.nonce, token.get("access_token"))
        sid = claims.get("sid")
        known = sid if isinstance(sid, str) else ""
        return LoggedIn(
            self._person(claims), str(claims["sub"]), known, id_token, pending.then, logouts_before=logouts_before
        )

    def has_ended(self, login: LoggedIn) -> bool:
        """Return whether the provider has ended a login since the visitor came back from it."""
        return self._logouts.has_ended(login.subject, login.sid, login.logouts_before)

    async def logged_out(self, text: str) -> LoggedOut:
        """Check a logout token. Return the logins that it ends. Raises RefusedLoginError.

        Logouts take no places of `ProviderPlaces`: logins of strangers from the provider's network must not keep
        sessions open. A token that known keys verify waits for nothing.
        """
        try:
            token = self._decoded_at_once(text)
            if token is None:
                token = await self._decoded_in_turn(text)
            return self._logouts.use(token.header, token.claims)
        except (JoseError, ValueError, TypeError) as error:
            raise self._invalid_logout(error) from None

    def _invalid_logout(self, error: Exception) -> RefusedLoginError:
        return RefusedLoginError(f"logout token: expected a valid one of {self._settings.issuer}, got {error}", 400)

    def _decoded_at_once(self, text: str) -> Token | None:
        """Return a token with a signature by a known key, None if its key is unknown. Raises JoseError, ValueError."""
        if self._keys is None or not self._is_fresh:
            return None
        with suppress(InvalidKeyIdError):
            return jwt.decode(text, self._keys, registry=_registry())
        return None

    async def _decoded_in_turn(self, text: str) -> Token:
        """Return a logout token whose key may have to be read. One token at a time reads keys."""
        if self._logouts_waiting >= MOST_LOGOUTS:
            raise RefusedLoginError(f"logout: expected at most {MOST_LOGOUTS} waiting. Try again in some seconds.", 503)
        self._logouts_waiting += 1
        try:
            async with self._logging_out, self._provider(nullcontext()) as client:
                await self._discovered(client)
                try:
                    return await self._decoded(client, text)
                except ValueError as error:  # of the token: the provider has answered
                    raise self._invalid_logout(error) from None
        finally:
            self._logouts_waiting -= 1

    def logout_url(self, id_token: str) -> str | None:
        """Return the URL that ends the login at the provider too, None if the provider has none."""
        endpoint = str(self._metadata.get("end_session_endpoint", ""))
        if not id_token or not is_protected(endpoint):
            return None
        back = f"{self._settings.url.rstrip('/')}/login"
        values = {"id_token_hint": id_token, "client_id": self._settings.client_id, "post_logout_redirect_uri": back}
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(values)}"

    @asynccontextmanager
    async def _provider(self, place: AbstractContextManager[None]) -> AsyncIterator[AsyncOAuth2Client]:
        """Yield a client of the provider, at a place. Raises RefusedLoginError if it does not answer in time."""
        settings = self._settings
        client = AsyncOAuth2Client(
            client_id=settings.client_id,
            client_secret=self._secret,
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            scope=settings.scope,
            redirect_uri=settings.url.rstrip("/") + DONE,
            code_challenge_method="S256",
            verify=self._tls,
        )
        try:
            with place:
                async with asyncio.timeout(_ANSWER_S), client:
                    yield client
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as error:  # ValueError: not JSON
            why = type(error).__name__
            raise RefusedLoginError(
                f"provider: expected an answer of {settings.issuer}, got {why}. Try again later.", 503
            ) from None

    @property
    def _is_fresh(self) -> bool:
        return bool(self._metadata) and self._clock_s() < self._known_until_s

    async def _discovered(self, client: AsyncOAuth2Client) -> dict[str, Any]:
        if self._is_fresh:
            return self._metadata
        issuer = self._settings.issuer
        found = await self._read(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise RefusedLoginError(f"issuer: expected {issuer}, got {str(found.get('issuer'))[:200]!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not is_protected(str(found.get(name, ""))):
                raise RefusedLoginError(f"provider: expected an https URL as {name}, got none")
        self._metadata, self._keys, self._known_until_s = found, None, self._clock_s() + _KNOWN_S
        return found

    async def _read(self, client: AsyncOAuth2Client, url: str) -> dict[str, Any]:
        answer = await client.request("GET", url, withhold_token=True)
        answer.raise_for_status()
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RefusedLoginError(f"provider: expected a JSON object at {url[:200]}, got another form", 503)
        return found

    async def _claims(
        self, client: AsyncOAuth2Client, id_token: str, nonce: str, access_token: str | None
    ) -> CodeIDToken:
        settings = self._settings
        try:
            token = await self._decoded(client, id_token)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": settings.issuer},
                    "aud": {"essential": True, "value": settings.client_id},
                },
                {"nonce": nonce, "client_id": settings.client_id, "access_token": access_token},
            )
            claims.validate(now=int(self._now_s()), leeway=int(settings.leeway_s))
        except (JoseError, ValueError, TypeError) as error:
            raise RefusedLoginError(f"ID token: expected a valid one of {settings.issuer}, got {error}") from None
        return claims

    async def _decoded(self, client: AsyncOAuth2Client, text: str) -> Token:
        """Return a token with a valid signature of the provider. Raises JoseError or ValueError."""
        keys = await self._key_set(client)
        try:
            return jwt.decode(text, keys, registry=_registry())
        except InvalidKeyIdError:  # the provider may have new keys
            return jwt.decode(text, await self._newer_keys(client, keys), registry=_registry())

    async def _key_set(self, client: AsyncOAuth2Client) -> KeySet:
        async with self._reading_keys:
            if self._keys is None:
                self._keys = await self._read_keys(client)
            return self._keys

    async def _newer_keys(self, client: AsyncOAuth2Client, known: KeySet) -> KeySet:
        """Return the provider's present keys, read at most once in `_REFETCH_S`. A failure keeps the known ones."""
        async with self._reading_keys:
            now_s = self._clock_s()
            if self._keys is None:
                self._keys = await self._read_keys(client)
            elif self._keys is known and now_s >= self._refetch_from_s:
                self._refetch_from_s = now_s + _REFETCH_S
                self._keys = await self._read_keys(client)
            return self._keys

    async def _read_keys(self, client: AsyncOAuth2Client) -> KeySet:
        return _usable(await self._read(client, str(self._metadata["jwks_uri"])))

    def _person(self, claims: Mapping[str, Any]) -> Person:
        settings = self._settings
        name, groups = claims.get(settings.name_claim), claims.get(settings.role_claim)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise RefusedLoginError(
                f"{settings.name_claim}: expected at most 64 letters, digits and . _ @ -, got {str(name)[:80]!r}", 403
            )
        values = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        roles = settings.roles_of(each for each in values if isinstance(each, str))
        if roles is None:
            raise RefusedLoginError(
                f"{name}: expected a group with a role in the claim {settings.role_claim}, got none. Ask an admin.", 403
            )
        return Person(name, roles)


def _usable(document: Mapping[str, Any]) -> KeySet:
    """Return the keys that this version can use. Raises RefusedLoginError without any."""
    listed, keys = document.get("keys"), list[Key]()
    for each in listed if isinstance(listed, list) else []:
        with suppress(JoseError, KeyError, ValueError, TypeError, AttributeError):  # an unknown type, curve or form
            keys.append(JWKRegistry.import_key(each))
    if not keys:
        raise RefusedLoginError("provider: expected at least one usable key, got none", 503)
    return KeySet(keys)


def _registry() -> JWSRegistry:
    return JWSRegistry(algorithms=[*_ALGORITHMS], strict_check_header=False)
