"""A peer over mutual TLS: nginx before a server that has none, the way a site gives Debian's Orthanc its TLS."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from drimbox.bench.pixels import peers
from drimbox.bench.pixels.box import Keys
from drimbox.bench.pixels.client import Address

# Nothing is held back on the disk, and the buffers are large: what such a proxy does at its best.
_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {roots};
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_http_version 1.1;
      proxy_buffer_size 256k;
      proxy_buffers 16 256k;
      proxy_busy_buffers_size 1m;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""


def program() -> Path | None:
    """nginx, where it is installed."""
    # Debian puts it where only root's PATH looks.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


@contextmanager
def secured(behind: Address, keys: Keys, folder: Path) -> Iterator[Address | None]:
    """A server in the clear, over mutual TLS with the box's own certificates; None where nginx is not installed.

    Raises ``Misconfigured`` where nginx does not start.
    """
    nginx = program()
    if nginx is None:
        yield None
        return
    folder.mkdir(parents=True)
    port = peers.free_port()
    chain = folder / "server.pem"
    chain.write_bytes(keys.server.certificate.read_bytes())
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            port=port,
            behind=behind.port,
            certificate=chain,
            key=keys.server.key,
            roots=keys.authority.roots,
        )
    )
    command = [str(nginx), "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(configuration)]
    with peers.running(command, port, folder / "log"):
        yield replace(behind, port=port, tls=keys.context())
