"""The configuration of nginx that is shipped is the one that the command writes, and nginx takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drimbox.box.nginx import nginx_configuration
from drimbox.box.settings import Settings

SHIPPED = Path(__file__).parents[2] / "docs" / "nginx" / "drimbox.conf"


def example() -> Settings:
    """A site with both functions and a console behind one nginx, in the places of the documentation."""

    def pair(name: str) -> dict[str, str]:
        return {"certificate": f"/etc/drimbox/{name}.pem", "key": f"/etc/drimbox/{name}.key"}

    def behind(name: str, host: str, port: int, tls: str) -> dict[str, Any]:
        proxy = {"socket": f"/run/drimbox/{name}.sock", "group": "www-data"}
        return {"port": port, "public_url": f"https://{host}", "tls": pair(tls), "proxy": proxy}

    return Settings.model_validate(
        {
            "box": {"name": "site"},
            "trust": {"roots": ["/etc/drimbox/igc-sante.pem"]},
            "structures": [
                {"id": "s", "name": "Site", "identifier": "1750803447", "auth": pair("auth"), "sign": pair("sign")}
            ],
            "pacs": [{"id": "p", "host": "127.0.0.1", "port": 4242, "ae_title": "PACS"}],
            "source": {
                "hl7": {"port": 2575},
                "dicom": {"port": 11112},
                "wado": behind("db", "db1.111.mesimagesmedicales.fr", 8441, "db"),
            },
            "consumer": behind("consumer", "consultation.site.example", 8442, "consultation"),
            "console": behind("console", "console.site.example", 8443, "console"),
            "link": {"proxy": {"socket": "/run/drimbox/vi.sock", "group": "www-data"}},
            "market_certificate": {
                "host": "vi1.111.mesimagesmedicales.fr",
                "authorities": [{"name": "Market", "directory": "https://acme.example/directory"}],
                "http_host": "127.0.0.1",
                "http_port": 8080,
                "nginx": {
                    "folder": "/var/lib/drimbox/nginx",
                    "password_file": "/etc/drimbox/vi.password",
                    "reload_command": ["/usr/bin/sudo", "-n", "/usr/bin/systemctl", "reload", "nginx"],
                },
            },
            "dmp": {
                **dict.fromkeys(("repository", "registry", "patients", "habilitations"), "https://dmp.example/x"),
                "source_id": "1.2.3",
            },
            "psc": {"discovery": "https://psc.example/d", "client_id": "x"},
            "whitelist": {"url": "https://list.example/l"},
        }
    )


def test_the_shipped_configuration_is_what_the_command_writes() -> None:
    assert SHIPPED.read_text("utf-8") == nginx_configuration(example())
