"""``python -m drimbox``."""

import os
from pathlib import Path

if __name__ == "__main__":
    # The library reads its configuration once, when it makes its first context: nothing has imported it yet.
    given = os.environ.get("OPENSSL_CONF")
    if given is None:
        os.environ["OPENSSL_CONF"] = str(Path(__file__).parent / "trust" / "openssl.cnf")
    import ssl

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if given is None:
        # Not for the programs that are started from here: it is not theirs.
        del os.environ["OPENSSL_CONF"]

    from drimbox.cli import main

    main()
