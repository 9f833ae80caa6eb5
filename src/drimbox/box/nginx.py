"""``drimbox nginx``: the configuration of an nginx that ends TLS before a box, written from the box's own.

TLS as this box does it itself (ANSSI guide): 1.3 and 1.2, the same suites and groups, no tickets, no early data. On the
``db`` host nginx demands a client certificate of the pinned authorities and hands it over; the box then judges it again
by its own trust, revocation and whitelist: lists of nginx's own are not needed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from drimbox.box.settings import Settings
from drimbox.box.settings.common import TlsServer
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
            "Aucune écoute n'est derrière un mandataire : ajoutez [source.wado.proxy], [consumer.proxy] ou "
            "[console.proxy] avec socket",
            code="nginx-none",
        )
    return "\n".join([_HEAD, *(_server(settings, name, section, authorities) for name, section in fronted)])


def _fronted(settings: Settings) -> Iterator[tuple[str, TlsServer]]:
    """The listeners behind a proxy, each with a name for nginx."""
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if name == "source":
            section, name = (section.wado if section is not None else None), "db"
        if isinstance(section, TlsServer) and section.proxy is not None:
            yield name, section


def _server(settings: Settings, name: str, section: TlsServer, authorities: Path | None) -> str:
    certificate, key = section.tls.certificate, section.tls.key
    if certificate is None or key is None:
        raise Misconfigured(
            f"nginx ne lit que des fichiers PEM : donnez certificate et key au tls de l'écoute {section.public_url}",
            code="nginx-pair",
        )
    public = urlsplit(section.public_url)
    port = public.port or 443
    upstream = f"drimbox_{name}"
    lines = [
        f"upstream {upstream} {{",
        f"    server {_upstream(section)};",
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
        f"    ssl_certificate {_quoted(certificate)};",
        f"    ssl_certificate_key {_quoted(key)};",
    ]
    if section.tls.password_file is not None:
        lines.append(f"    ssl_password_file {_quoted(section.tls.password_file)};")
    lines += [_TLS.rstrip()]
    if name == "db":
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
        f"        proxy_pass {'http' if section.proxy and section.proxy.socket else 'https'}://{upstream};",
        textwrap.indent(_elsewhere(section), "        ") + _LOCATION.rstrip(),
        "    }",
        "}",
        "",
    ]
    return "\n".join(lines)


def _upstream(section: TlsServer) -> str:
    assert section.proxy is not None
    if section.proxy.socket is not None:
        return f"unix:{section.proxy.socket}"
    host = f"[{section.host}]" if ":" in section.host else section.host
    return f"{host}:{section.port}"


def _elsewhere(section: TlsServer) -> str:
    """To a box on another machine: over TLS, with nginx's own certificate, which the site puts in these places."""
    if section.proxy is None or section.proxy.socket is not None:
        return ""
    public = urlsplit(section.public_url)
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
