"""A PKCS#11 token in software (SoftHSM), as a site would fill it with its maker's tools."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from drimbox.sandbox.pki import PemPair
from drimbox.trust.token import TokenPlace

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
TOOLS = [shutil.which(name) for name in ("softhsm2-util", "pkcs11-tool", "openssl")]
AVAILABLE = MODULE.is_file() and all(TOOLS)
PIN, LABEL = b"246813", "DRIMbox"


@dataclass(slots=True)
class SoftToken:
    """A token; the environment must name its configuration before anything uses the module."""

    folder: Path
    name: str = LABEL

    @property
    def configuration(self) -> Path:
        return self.folder / "softhsm2.conf"

    def begin(self) -> None:
        (self.folder / "tokens").mkdir(parents=True)
        self.configuration.write_text(f"directories.tokendir = {self.folder / 'tokens'}\nlog.level = ERROR\n")

    def initialise(self, name: str = "") -> None:
        command = ("--init-token", "--free", "--label", name or self.name, "--so-pin", "135791", "--pin", PIN.decode())
        self._run(0, *command)

    def put(self, pair: PemPair, key: str, identifier: str) -> None:
        """The key, which does not come out again, and its certificate."""
        self._run(
            0,
            "--import",
            str(pair.key),
            "--token",
            self.name,
            "--label",
            key,
            "--id",
            identifier,
            "--pin",
            PIN.decode(),
        )
        der = self.folder / f"{identifier}.der"
        self._run(2, "x509", "-in", str(pair.certificate), "-outform", "DER", "-out", str(der))
        written = ("--write-object", str(der), "--type", "cert", "--id", identifier, "--label", key)
        login = ("--module", str(MODULE), "--token-label", self.name, "--login", "--pin", PIN.decode())
        self._run(1, *login, *written)

    def place(self, key: str, pin: bytes = PIN, certificate: Path | None = None) -> TokenPlace:
        return TokenPlace(MODULE, self.name, key, pin, certificate)

    def _run(self, tool: int, *arguments: str) -> None:
        command = TOOLS[tool]
        assert command is not None
        subprocess.run(
            [command, *arguments],
            check=True,
            capture_output=True,
            timeout=30,
            env={"SOFTHSM2_CONF": str(self.configuration), "PATH": "/usr/bin:/bin"},
        )
