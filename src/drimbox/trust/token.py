"""A private key that never leaves its PKCS#11 token (a smart card, an HSM): signatures are made inside it.

``Tokens`` gives a ``Credential`` whose key is a ``TokenKey``: to whoever signs it looks like any RSA key, but
it can only sign, and there are no bytes of it to be had. OpenSSL, as Python drives it, reads keys from files only; such
a key therefore signs documents (VIHF, XAdES) and cannot hold a TLS connection (``trust.tls``).

A wrong PIN locks a token after a few tries. One that was refused is not tried again until it is changed.

Drivers of tokens are used in a thread of their own. They share the OpenSSL of this process, and leave their errors in
the queue of the thread that calls them, where ``ssl`` would take them for its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pkcs11
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa, utils
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding, PKCS1v15
from pkcs11.exceptions import PKCS11Error

from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.trust.keystore import UNREADABLE, Credential, assembled, matches, read_certificates, strong_key

R = TypeVar("R")

# The DER heads of DigestInfo (RFC 8017 9.2): the one mechanism that every token has, CKM_RSA_PKCS, signs a DigestInfo.
_DIGEST_INFO = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
# After these the session is opened again, once: the token was taken out and put back, or its driver began anew.
_LOST = (
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.DeviceRemoved,
    pkcs11.TokenNotPresent,
    pkcs11.UserNotLoggedIn,
    pkcs11.ObjectHandleInvalid,
)
# Seconds that an answer is waited for; a token on the network signs in less than one.
_PATIENCE = 30.0
_PIN_REFUSED = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange)


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where a key is: the PKCS#11 ``module``, the label of the token, the label of the key, its PIN.

    ``certificate`` is a PEM file of the certificate and its chain; None: those that the token holds.
    """

    module: Path
    token: str
    key: str
    pin: bytes = field(repr=False)
    certificate: Path | None = None

    def __str__(self) -> str:
        return f"{self.key} du jeton {self.token}"


class TokenKey(rsa.RSAPrivateKey):
    """An RSA key in a token. Anything but a signature raises ``Misconfigured`` (``token-key``)."""

    def __init__(self, session: _Session, public: rsa.RSAPublicKey) -> None:
        self._session = session
        self._public = public

    def __repr__(self) -> str:
        return f"<TokenKey {self._session.place}>"

    def __reduce__(self) -> Any:
        raise self._stays()

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    def sign(
        self,
        data: bytes,
        padding: AsymmetricPadding,
        algorithm: utils.Prehashed | hashes.HashAlgorithm | utils.NoDigestInfo,
    ) -> bytes:
        """RSASSA-PKCS1-v1_5, made inside the token. Raises ``Unavailable`` (``token``) when it does not answer."""
        hashed = isinstance(algorithm, hashes.HashAlgorithm) and isinstance(padding, PKCS1v15)
        head = _DIGEST_INFO.get(algorithm.name) if hashed and isinstance(algorithm, hashes.HashAlgorithm) else None
        if head is None or not isinstance(algorithm, hashes.HashAlgorithm):
            raise Misconfigured("Une clé de jeton ne signe qu'en RSA PKCS#1 v1.5 avec SHA-1 ou SHA-2", code="token-key")
        digest = hashes.Hash(algorithm)
        digest.update(data)
        signature = self._session.signed(head + digest.finalize())
        try:
            self._public.verify(signature, data, padding, algorithm)
        except InvalidSignature:
            raise Unavailable("Le jeton PKCS#11 a rendu une signature fausse", code="token") from None
        return signature

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        raise self._stays()

    def private_numbers(self) -> rsa.RSAPrivateNumbers:
        raise self._stays()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        raise self._stays()

    def __copy__(self) -> TokenKey:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> TokenKey:
        return self

    def _stays(self) -> Misconfigured:
        return Misconfigured(f"La clé {self._session.place} ne sort pas de son jeton", code="token-key")


class _Session:
    """The session on a token, opened at first need; one call at a time."""

    def __init__(self, place: TokenPlace, logged_in: Callable[[TokenPlace], Any], thread: ThreadPoolExecutor) -> None:
        self.place = place
        self._logged_in = logged_in
        self._thread = thread
        self._opened: Any = None
        self._key: Any = None

    def signed(self, digest_info: bytes) -> bytes:
        def sign(opened: Any) -> bytes:
            if self._key is None:
                self._key = _private_key(opened, self.place)
            return bytes(self._key.sign(digest_info, mechanism=pkcs11.Mechanism.RSA_PKCS))

        return self.work(sign)

    def work(self, act: Callable[[Any], R]) -> R:
        """Do ``act`` with the session. Raises ``Unavailable`` (``token``), ``Misconfigured`` (``credential``)."""
        try:
            return self._thread.submit(self._work, act).result(_PATIENCE)
        except TimeoutError:
            raise self._silent("TimeoutError") from None

    def _work(self, act: Callable[[Any], R]) -> R:
        try:
            try:
                return act(self._open())
            except _LOST:
                self._forget()
                return act(self._open())
        except PKCS11Error as error:
            self._forget()
            raise self._silent(type(error).__name__) from None

    def _silent(self, told: str) -> Unavailable:
        return Unavailable(
            f"Le jeton PKCS#11 {self.place.token} ne répond pas comme attendu : vérifiez qu'il est branché",
            code="token",
            peer_code=told,
        )

    def _open(self) -> Any:
        if self._opened is None:
            self._opened = self._logged_in(self.place)
        return self._opened

    def _forget(self) -> None:
        opened, self._opened, self._key = self._opened, None, None
        if opened is not None:
            try:
                opened.close()
            except PKCS11Error:
                return


class Tokens:
    """The sessions on tokens, one for each key, and the PINs that were refused. One of these is enough for a box."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pkcs11")
        self._sessions: dict[TokenPlace, _Session] = {}
        self._refused: set[tuple[Path, str, bytes]] = set()

    def credential(self, place: TokenPlace) -> Credential:
        """The pair, whatever its dates. Raises ``Misconfigured`` (``credential``), ``Unavailable`` (``token``)."""
        session = self._sessions.setdefault(place, _Session(place, self._logged_in, self._thread))
        if place.certificate is not None:
            certificates = read_certificates(place.certificate)
        else:
            certificates = session.work(lambda opened: _certificates(opened, place))
        key = TokenKey(session, session.work(lambda opened: _public_numbers(opened, place)).public_key())
        credential = assembled(certificates, strong_key(key, str(place)), str(place))
        if not matches(credential):
            raise _bad(f"La clé {place} n'est pas celle du certificat. Donnez le certificat de cette clé")
        return credential

    def _logged_in(self, place: TokenPlace) -> Any:
        secret = (place.module, place.token, hashlib.sha256(b"drimbox pin\0" + place.pin).digest())
        if secret in self._refused:
            raise _wrong_pin(place)
        token = _token(place)
        try:
            return token.open(user_pin=place.pin.decode("utf-8", "replace"))
        except pkcs11.UserAlreadyLoggedIn:
            # By another session of this process: who is logged in holds for all of them.
            return token.open()
        except pkcs11.PinLocked:
            raise _bad(f"Le PIN du jeton {place.token} est bloqué. Débloquez-le avec l'outil du fabricant") from None
        except _PIN_REFUSED:
            self._refused.add(secret)
            raise _wrong_pin(place) from None


def _token(place: TokenPlace) -> Any:
    try:
        library = pkcs11.lib(str(place.module))
    except (PKCS11Error, RuntimeError, OSError):
        raise _bad(
            f"Le module PKCS#11 {place.module} ne peut pas être chargé. Installez celui du fabricant du jeton"
        ) from None
    try:
        return library.get_token(token_label=place.token)
    except (pkcs11.NoSuchToken, pkcs11.MultipleTokensReturned, pkcs11.TokenNotPresent):
        raise _bad(
            f"Aucun jeton PKCS#11 nommé « {place.token} », ou plusieurs. Branchez-le, ou corrigez token"
        ) from None


def _wrong_pin(place: TokenPlace) -> Misconfigured:
    return _bad(
        f"Le PIN du jeton {place.token} est faux. Corrigez pin_file : il n'est pas essayé de nouveau d'ici là, pour ne "
        "pas bloquer le jeton"
    )


def _private_key(opened: Any, place: TokenPlace) -> Any:
    try:
        return opened.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=place.key)
    except (pkcs11.NoSuchKey, pkcs11.MultipleObjectsReturned):
        raise _bad(
            f"Aucune clé privée « {place.key} » dans le jeton {place.token}, ou plusieurs. Corrigez key"
        ) from None


def _public_numbers(opened: Any, place: TokenPlace) -> rsa.RSAPublicNumbers:
    key = _private_key(opened, place)
    if key.key_type is not pkcs11.KeyType.RSA:
        raise _bad(
            f"La clé {place} n'est pas une clé RSA, que la signature du DMP demande. Commandez un certificat RSA"
        )
    modulus, exponent = key[pkcs11.Attribute.MODULUS], key[pkcs11.Attribute.PUBLIC_EXPONENT]
    return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))


def _certificates(opened: Any, place: TokenPlace) -> tuple[x509.Certificate, ...]:
    """The certificate that goes with the key (same CKA_ID), then the others."""
    identifier = _private_key(opened, place)[pkcs11.Attribute.ID]
    own: list[x509.Certificate] = []
    others: list[x509.Certificate] = []
    for held in opened.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE}):
        try:
            certificate = x509.load_der_x509_certificate(held[pkcs11.Attribute.VALUE])
            _ = (certificate.subject, certificate.issuer, certificate.public_key())
        except UNREADABLE:
            continue
        (own if held[pkcs11.Attribute.ID] == identifier else others).append(certificate)
    if not own:
        raise _bad(f"Le jeton {place.token} n'a pas le certificat de la clé {place.key}. Donnez-le avec certificate")
    newest = max(own, key=lambda one: one.not_valid_before_utc)
    return (newest, *others)


def _bad(reason: str) -> Misconfigured:
    return Misconfigured(reason, code="credential")
