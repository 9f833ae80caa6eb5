"""``drimbox nginx``: the configuration of an nginx that ends TLS before a box, written from the box's own.

TLS as this box does it itself (ANSSI guide): 1.3 and 1.2, the same suites and groups, no tickets, no early data. On the
``db`` host nginx demands a client certificate of the pinned authorities and hands it over; the box then judges it again
by its own trust, revocation and whitelist: lists of nginx's own are not needed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from drimbox.box.link import public_url
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair, ProxySection, TlsServer
from drimbox.box.settings.link import LinkSection
from drimbox.certificates.handing import file_of
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_proxy import ADDRESS_FIELD, CERTIFICATE_FIELD
from drimbox.trust.keystore import read_certificates
from drimbox.trust.tls import GROUPS, TLS12_SUITES

_HEAD = """\
# Written by `drimbox nginx`; goes into the http block of nginx (1.19.4 or newer), as a file of conf.d for instance.
# After a change of [..proxy] in the box's configuration, write it again.
"""

_TLS = f"""\
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers {TLS12_SUITES};
    ssl_conf_command Options ServerPreference,NoRenegotiation,-Compression;
    ssl_conf_command Groups {GROUPS};
    ssl_prefer_server_ciphers on;
    ssl_session_tickets off;
    ssl_session_cache off;
    ssl_early_data off;
"""

_LOCATION = f"""\
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header {ADDRESS_FIELD} $remote_addr;
        proxy_set_header {CERTIFICATE_FIELD} $ssl_client_escaped_cert;
        # Images pass as they come: neither kept whole nor on the disk.
        proxy_buffering off;
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
        proxy_connect_timeout 5s;
        proxy_read_timeout 300s;
        proxy_send_timeout 300s;
        # A request is never sent twice.
        proxy_next_upstream off;
"""


def nginx_configuration(settings: Settings, authorities: Path | None = None) -> str:
    """The configuration for every listener that has a ``proxy`` table.

    ``authorities`` is a file of the pinned CAs for nginx, needed for the ``db`` host where ``trust.roots`` names more
    than one file. Raises ``Misconfigured`` (``nginx-none``, ``nginx-authorities``, ``nginx-pair``).
    """
    fronted = list(_fronted(settings))
    if not fronted:
        raise Misconfigured(
            "Aucune écoute n'est derrière un mandataire : ajoutez [source.wado.proxy], [consumer.proxy], "
            "[console.proxy] ou [link.proxy] avec socket",
            code="nginx-none",
        )
    return "\n".join([_HEAD, *(_server(settings, front, authorities) for front in fronted), *_challenges(settings)])


@dataclass(frozen=True, slots=True)
class _Front:
    """A listener behind a proxy: ``name`` for nginx, what nginx shows, and where the box listens."""

    name: str
    public_url: str
    certificate: Path
    key: Path
    password_file: Path | None
    proxy: ProxySection
    host: str
    port: int


def _fronted(settings: Settings) -> Iterator[_Front]:
    """The listeners behind a proxy. Raises ``Misconfigured`` (``nginx-pair``)."""
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if name == "source":
            section, name = (section.wado if section is not None else None), "db"
        if isinstance(section, TlsServer) and section.proxy is not None:
            pair = _pair(section.tls, section.public_url)
            yield _Front(name, section.public_url, *pair, section.proxy, section.host, section.port)
    link = settings.link
    if link is not None and link.proxy is not None:
        url = public_url(settings)
        yield _Front("vi", url, *_market_pair(settings, link, url), link.proxy, link.host, link.port)


def _pair(tls: KeyPair, url: str) -> tuple[Path, Path, Path | None]:
    if tls.certificate is None or tls.key is None:
        raise Misconfigured(
            f"nginx ne lit que des fichiers PEM : donnez certificate et key au tls de l'écoute {url}",
            code="nginx-pair",
        )
    return tls.certificate, tls.key, tls.password_file


def _market_pair(settings: Settings, link: LinkSection, url: str) -> tuple[Path, Path, Path | None]:
    """What the box hands over; else the pair of the listener, which the site keeps as it likes."""
    market = settings.market_certificate
    if market is not None and market.nginx is not None:
        file = file_of(market.nginx.folder, market.host)
        return file, file, market.nginx.password_file
    if link.tls is not None and link.proxy is not None and link.proxy.socket is not None:
        return _pair(link.tls, url)
    raise Misconfigured(
        f"nginx n'a pas de certificat pour {url} : ajoutez [market_certificate.nginx], par quoi la DRIMbox le lui "
        "remet, ou le tls de [link]",
        code="nginx-pair",
    )


def _challenges(settings: Settings) -> Iterator[str]:
    """Port 80 of the viewer host: all of it goes to the box, which answers HTTP-01 and sends the rest to https."""
    market, link = settings.market_certificate, settings.link
    if market is None or link is None or link.proxy is None or market.validation != "http-01":
        return
    host = f"[{market.http_host}]" if ":" in market.http_host else market.http_host
    lines = [
        "# HTTP-01 (control point C17), and a redirect to https; nothing else.",
        "server {",
        "    listen 80;",
        "    listen [::]:80;",
        f"    server_name {market.host};",
        "    server_tokens off;",
        "    client_max_body_size 1k;",
        "    client_header_timeout 10s;",
        "    keepalive_timeout 5s;",
        "    location / {",
        f"        proxy_pass http://{host}:{market.http_port};",
        "        proxy_set_header Host $http_host;",
        "        proxy_connect_timeout 5s;",
        "        proxy_read_timeout 30s;",
        "    }",
        "}",
        "",
    ]
    yield "\n".join(lines)


def _server(settings: Settings, front: _Front, authorities: Path | None) -> str:
    public = urlsplit(front.public_url)
    port = public.port or 443
    upstream = f"drimbox_{front.name}"
    lines = [
        f"upstream {upstream} {{",
        f"    server {_upstream(front)};",
        "    keepalive 32;",
        "    # Shorter than the box's own: a connection is never used while the box closes it.",
        "    keepalive_timeout 20s;",
        "}",
        "",
        "server {",
        f"    listen {port} ssl;",
        f"    listen [::]:{port} ssl;",
        f"    server_name {public.hostname};",
        "    server_tokens off;",
        f"    ssl_certificate {_quoted(front.certificate)};",
        f"    ssl_certificate_key {_quoted(front.key)};",
    ]
    if front.password_file is not None:
        lines.append(f"    ssl_password_file {_quoted(front.password_file)};")
    lines += [_TLS.rstrip()]
    if front.name == "db":
        lines += [
            f"    ssl_client_certificate {_quoted(_authorities(settings, authorities))};",
            "    ssl_verify_client on;",
            "    ssl_verify_depth 4;",
        ]
    lines += [
        "    client_max_body_size 16m;",
        "    large_client_header_buffers 8 32k;",
        "    client_header_timeout 60s;",
        "    client_body_timeout 60s;",
        "    keepalive_timeout 30s;",
        "    location / {",
        f"        proxy_pass {'http' if front.proxy.socket else 'https'}://{upstream};",
        textwrap.indent(_elsewhere(front), "        ") + _LOCATION.rstrip(),
        "    }",
        "}",
        "",
    ]
    return "\n".join(lines)


def _upstream(front: _Front) -> str:
    if front.proxy.socket is not None:
        return f"unix:{front.proxy.socket}"
    host = f"[{front.host}]" if ":" in front.host else front.host
    return f"{host}:{front.port}"


def _elsewhere(front: _Front) -> str:
    """To a box on another machine: over TLS, with nginx's own certificate, which the site puts in these places."""
    if front.proxy.socket is not None:
        return ""
    public = urlsplit(front.public_url)
    return (
        "proxy_ssl_certificate /etc/nginx/drimbox/client.pem;\n"
        "proxy_ssl_certificate_key /etc/nginx/drimbox/client.key;\n"
        "proxy_ssl_trusted_certificate /etc/nginx/drimbox/authorities.pem;\n"
        "proxy_ssl_verify on;\n"
        "proxy_ssl_verify_depth 4;\n"
        f"proxy_ssl_name {public.hostname};\n"
        "proxy_ssl_server_name on;\n"
        "proxy_ssl_protocols TLSv1.2 TLSv1.3;\n"
    )


def _authorities(settings: Settings, given: Path | None) -> Path:
    files = settings.trust.roots
    if given is not None:
        return given
    if len(files) != 1:
        raise Misconfigured(
            "nginx lit les autorités de clients dans un seul fichier : réunissez les fichiers de trust.roots en un "
            "(drimbox nginx --authorities FICHIER l'écrit)",
            code="nginx-authorities",
        )
    return files[0]


def write_authorities(settings: Settings, target: Path) -> None:
    """Every pinned authority in one PEM file. Raises ``Misconfigured``."""
    from cryptography.hazmat.primitives.serialization import Encoding

    pinned = dict.fromkeys(c for path in settings.trust.roots for c in read_certificates(path))
    try:
        target.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in pinned))
    except OSError as error:
        raise Misconfigured(f"Le fichier {target} ne peut pas être écrit : {error.strerror}", code="file") from error


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
