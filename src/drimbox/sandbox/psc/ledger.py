"""What is under way, in memory: logins at the page, sessions, grants, tokens. The one place that knows lifetimes."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from enum import Enum

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.sandbox.psc.people import User

ACCESS_LIFE = dt.timedelta(minutes=2)
REFRESH_LIFE = dt.timedelta(minutes=30)
SESSION_LIFE = dt.timedelta(hours=4)
SESSION_IDLE = dt.timedelta(minutes=30)
CODE_LIFE = dt.timedelta(seconds=60)
LOGIN_LIFE = dt.timedelta(minutes=10)

#: More than this many of a kind at once is not a test any more.
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked authorization request."""

    client_id: str
    redirect_uri: str
    scope: str
    state: str
    nonce: str
    challenge: str


@dataclass(slots=True)
class Session:
    """A PSC session of one browser. ``clients`` are those that got a code in it."""

    sid: str
    user: User
    authenticated_at: dt.datetime
    last_seen: dt.datetime
    clients: set[str] = field(default_factory=set)
    ended: bool = False

    def alive(self, now: dt.datetime) -> bool:
        """Neither ended, nor older than 4 hours, nor idle for 30 minutes (standards.md F.2)."""
        return not self.ended and now < self.ends_at and now < self.last_seen + SESSION_IDLE

    @property
    def ends_at(self) -> dt.datetime:
        """The latest instant of the session."""
        return self.authenticated_at + SESSION_LIFE


@dataclass(slots=True)
class Grant:
    """What one code led to: all its tokens fall together when it is ``revoked``."""

    session: Session
    asked: Asked
    code_ends_at: dt.datetime
    redeemed: bool = False
    revoked: bool = False


class Kind(Enum):
    """The kinds of token that the ledger follows, by their ``typ`` claim."""

    ACCESS = "Bearer"
    REFRESH = "Refresh"


@dataclass(slots=True)
class Token:
    """A token that was given out, by its ``jti``. A refresh token is ``used`` once."""

    jti: str
    kind: Kind
    grant: Grant
    ends_at: dt.datetime
    used: bool = False


@dataclass(slots=True)
class DeviceRequest:
    """A login that waits for its user on their device (CIBA): ``confirmed`` None as long as they have not answered."""

    auth_req_id: str
    client_id: str
    user: User
    binding: str
    channel: str
    scope: str
    ends_at: dt.datetime
    interval: int
    polled_at: dt.datetime | None = None
    confirmed: bool | None = None


@dataclass(frozen=True, slots=True)
class _Login:
    asked: Asked
    browser: str
    ends_at: dt.datetime


class Ledger:
    """Opens, finds and ends. Everything it hands out was alive at the clock's instant."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logins: dict[str, _Login] = {}
        self._cookies: dict[str, Session] = {}
        self._sessions: dict[str, Session] = {}
        self._grants: dict[str, Grant] = {}
        self._tokens: dict[str, Token] = {}
        self._devices: dict[str, DeviceRequest] = {}

    # -- the login page

    def begin_login(self, asked: Asked, browser: str) -> str:
        """Remember a request while its page is shown; the answer is the page's secret, good once, in that browser."""
        self._sweep()
        secret = new_secret()
        self._logins[secret] = _Login(asked, browser, self._clock.now() + LOGIN_LIFE)
        return secret

    def take_login(self, secret: str, browser: str) -> Asked | None:
        """The request behind a page, None when the secret is unknown, used, too old or of another browser."""
        login = self._logins.get(secret)
        if login is None or login.browser != browser or self._clock.now() >= login.ends_at:
            return None
        del self._logins[secret]
        return login.asked

    # -- sessions

    def open_session(self, user: User) -> tuple[Session, str]:
        """A new session, and the secret of its cookie."""
        self._sweep()
        now = self._clock.now()
        session = Session(str(uuid.uuid4()), user, now, now)
        cookie = new_secret()
        self._cookies[cookie] = session
        self._sessions[session.sid] = session
        return session, cookie

    def session_of_cookie(self, cookie: str) -> Session | None:
        """The live session of a browser."""
        session = self._cookies.get(cookie)
        return session if session is not None and session.alive(self._clock.now()) else None

    def end_session(self, sid: str) -> Session | None:
        """End a session: its tokens are dead from now on. None when it had ended already."""
        session = self._sessions.get(sid)
        if session is None or session.ended:
            return None
        session.ended = True
        return session

    # -- logins on a device

    def ask_device(
        self, client_id: str, user: User, binding: str, channel: str, scope: str, life: dt.timedelta, interval: int
    ) -> DeviceRequest:
        """Ring a user's device. A second request of the same service for the same user takes the place of the first."""
        self._sweep()
        self._devices = {
            key: known
            for key, known in self._devices.items()
            if (known.client_id, known.user.login) != (client_id, user.login) or known.confirmed is not None
        }
        ends_at = self._clock.now() + life
        asked = DeviceRequest(new_secret(), client_id, user, binding, channel, scope, ends_at, interval)
        self._devices[asked.auth_req_id] = asked
        return asked

    def ringing(self) -> list[DeviceRequest]:
        """The requests that nobody has answered yet."""
        now = self._clock.now()
        return [known for known in self._devices.values() if known.confirmed is None and now < known.ends_at]

    def answer_device(self, auth_req_id: str, *, confirmed: bool) -> bool:
        """The user's answer, once; False when the request does not ring any more."""
        known = self._devices.get(auth_req_id)
        if known is None or known.confirmed is not None or self._clock.now() >= known.ends_at:
            return False
        known.confirmed = confirmed
        return True

    def poll_device(self, auth_req_id: str, client_id: str) -> Grant:
        """The grant of a confirmed request, once. Raises ``Refused`` with the code of CIBA 11 otherwise."""
        known = self._devices.get(auth_req_id)
        if known is None or known.client_id != client_id:
            raise Refused("auth_req_id inconnu, déjà utilisé, ou d'un autre client", code="invalid_grant")
        now = self._clock.now()
        last, known.polled_at = known.polled_at, now
        # A tenth of a second is allowed to the network.
        if last is not None and (now - last).total_seconds() < known.interval - 0.1:
            known.interval += 5
            raise Refused("Question posée trop tôt", code="slow_down")
        if now >= known.ends_at:
            raise Refused("La demande a expiré", code="expired_token")
        if known.confirmed is None:
            raise Refused("L'utilisateur n'a pas encore répondu", code="authorization_pending")
        del self._devices[auth_req_id]
        if not known.confirmed:
            raise Refused("L'utilisateur a refusé", code="access_denied")
        session, _ = self.open_session(known.user)
        session.clients.add(client_id)
        asked = Asked(client_id, "", known.scope, "", "", "")
        return Grant(session, asked, now, redeemed=True)

    # -- grants and tokens

    def open_grant(self, session: Session, asked: Asked) -> str:
        """A code for a client in a session; using it counts as activity of the session."""
        self._sweep()
        now = self._clock.now()
        session.last_seen = now
        session.clients.add(asked.client_id)
        code = new_secret()
        self._grants[code] = Grant(session, asked, now + CODE_LIFE)
        return code

    def redeem(self, code: str, client_id: str) -> Grant:
        """The grant of a code, once. A code that comes back revokes every token it led to (RFC 6749 4.1.2)."""
        grant = self._grants.get(code)
        if grant is None:
            raise Refused("Code inconnu", code="invalid_grant")
        if grant.redeemed or grant.asked.client_id != client_id:
            grant.revoked = True
            raise Refused("Code déjà utilisé, ou code d'un autre client", code="invalid_grant")
        grant.redeemed = True
        now = self._clock.now()
        if now >= grant.code_ends_at or not grant.session.alive(now):
            raise Refused("Code expiré", code="invalid_grant")
        return grant

    def record(self, grant: Grant, kind: Kind) -> Token:
        """A new token of a grant; it never outlives the session. Giving one out is activity of the session."""
        self._sweep()
        now = self._clock.now()
        grant.session.last_seen = now
        life = ACCESS_LIFE if kind is Kind.ACCESS else REFRESH_LIFE
        token = Token(str(uuid.uuid4()), kind, grant, min(now + life, grant.session.ends_at))
        self._tokens[token.jti] = token
        return token

    def live_token(self, jti: str) -> Token | None:
        """The token by its ``jti`` when nothing has ended it."""
        token = self._tokens.get(jti)
        if token is None or token.used or token.grant.revoked:
            return None
        now = self._clock.now()
        return token if now < token.ends_at and token.grant.session.alive(now) else None

    def rotate(self, jti: str, client_id: str) -> Grant:
        """Use a refresh token up. One that comes back revokes its whole grant: somebody else holds a copy."""
        token = self._tokens.get(jti)
        if token is not None and (token.used or token.grant.asked.client_id != client_id):
            token.grant.revoked = True
            raise Refused("Jeton de rafraîchissement déjà utilisé, ou d'un autre client", code="invalid_grant")
        if token is None or token.kind is not Kind.REFRESH or self.live_token(jti) is None:
            raise Refused("Jeton de rafraîchissement expiré ou révoqué", code="invalid_grant")
        token.used = True
        return token.grant

    def revoke(self, jti: str, client_id: str) -> None:
        """End an access token, or a refresh token with its whole grant (RFC 7009 2.1); not another client's."""
        token = self._tokens.get(jti)
        if token is None or token.grant.asked.client_id != client_id:
            return
        if token.kind is Kind.REFRESH:
            token.grant.revoked = True
        del self._tokens[jti]

    def _sweep(self) -> None:
        """Forget what can no longer matter; refuse to grow beyond all measure."""
        now = self._clock.now()
        kept = SESSION_LIFE + REFRESH_LIFE
        self._logins = {k: v for k, v in self._logins.items() if now < v.ends_at}
        self._sessions = {k: v for k, v in self._sessions.items() if now < v.authenticated_at + kept}
        self._cookies = {k: v for k, v in self._cookies.items() if v.alive(now)}
        self._grants = {k: v for k, v in self._grants.items() if now < v.session.authenticated_at + kept}
        self._tokens = {k: v for k, v in self._tokens.items() if now < v.ends_at + REFRESH_LIFE}
        self._devices = {k: v for k, v in self._devices.items() if now < v.ends_at + LOGIN_LIFE}
        tables = (self._logins, self._sessions, self._grants, self._tokens, self._devices)
        if any(len(table) >= MAX_ENTRIES for table in tables):
            raise Refused("Trop de connexions en cours", code="temporarily_unavailable")
