"""The inventory of certificates in a real browser: what is in service, a pair refused, a renewed one installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from console_world import ORIGIN, open_site
from test_console_browser import Scene, scene  # noqa: F401 - a fixture

from browsing import CHROMIUM
from drimbox.console.keys import KeyRoom
from drimbox.foundation.http_guard import Guard
from drimbox.keyring.inventory import Line
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store.database import Pool
from keyring.keyring_world import PASSWORD, World, as_pkcs12, brought

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]


async def none() -> tuple[Line, ...]:
    return ()


@pytest.mark.requirement("DB.SO.89", "SSI/GEN.16")
async def test_an_administrator_installs_a_renewed_pair(scene: Scene, authority: TestAuthority, tmp_path: Path) -> None:  # noqa: F811
    site, world = scene.site, World(authority, tmp_path)
    world.put(brought(authority, left=20.5))
    acts = world.acts(site.pool, world.ring())
    assert isinstance(site.app, Guard)
    site.app._app.state.desk = replace(site.desk, keys=KeyRoom(acts, none))  # type: ignore[attr-defined]
    await site.person("administrator")
    page = await scene.page()
    await scene.log_in(page, "administrator.essai")
    await page.get_by_role("link", name="Inventaire").click()
    assert "À renouveler" in await page.get_by_role("row").nth(1).inner_text()
    await scene.looked_at(page, "pairs")

    file, form = page.get_by_label("Fichier PKCS#12"), page.get_by_role("region", name="Installer une paire")
    wrong, right = tmp_path / "wrong.p12", tmp_path / "right.p12"
    wrong.write_bytes(as_pkcs12(brought(authority, Profile.ORG_AUTH_CLI, unit="1990000001")))
    right.write_bytes(as_pkcs12(brought(authority, issued=1)))
    await file.set_input_files(wrong)
    await form.get_by_label("Mot de passe").fill(PASSWORD.decode())
    await page.get_by_role("button", name="Vérifier et installer").click()
    told = await page.get_by_role("alert").inner_text()
    assert "ORG SIGN" in told
    assert "1990000001" in told
    await scene.looked_at(page, "pairs-refused")
    await file.set_input_files(right)
    await form.get_by_label("Mot de passe").fill(PASSWORD.decode())
    await page.keyboard.press("Enter")
    await page.get_by_role("status").first.wait_for()
    assert "Paire installée" in await page.get_by_role("status").first.inner_text()
    assert "En service" in await page.get_by_role("row").nth(1).inner_text()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Télécharger la liste").click()
    assert (await download.value).suggested_filename.endswith(".csv")
    await page.get_by_role("button", name="Retirer").click()
    assert "retirée" in await page.get_by_role("status").first.inner_text()
    await scene.looked_at(page, "pairs-removed")


async def test_only_administrators_and_only_forms(pool: Pool, authority: TestAuthority, tmp_path: Path) -> None:
    world = World(authority, tmp_path)
    world.put(brought(authority))
    acts = world.acts(pool, world.ring())
    async with open_site(pool, keys=KeyRoom(acts, none)) as site:
        operator = await site.logged_in("operator")
        for path in ("/inventaire", "/inventaire.csv"):
            assert (await operator.get(path)).status_code == 403
        browser = await site.logged_in("administrator")
        shown = await browser.get("/inventaire")
        token = shown.text.partition('name="jeton" value="')[2].partition('"')[0]
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        head = {"origin": ORIGIN, "cookie": cookie, "content-type": "multipart/form-data; boundary=x"}

        async def sent(body: bytes) -> int:
            answer = await browser.client.request("POST", "/inventaire/installer", content=body, headers=head)
            assert answer.status_code != 500
            assert "PRIVATE" not in answer.text
            return answer.status_code

        def part(name: str, value: bytes, file: bool = False) -> bytes:
            more = b'; filename="f"\r\nContent-Type: application/octet-stream' if file else b""
            return b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), more, value)

        ours = part("jeton", token.encode()) + part("reglage", world.name.encode())
        assert await sent(b"") in (400, 403)
        assert await sent(b"--x\r\n") in (400, 403)
        assert await sent(part("jeton", b"autre") + b"--x--\r\n") in (400, 403)
        for content in (
            b"",
            b"\x00\xff" * 500,
            b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        ):
            assert await sent(ours + part("fichier", content, file=True) + b"--x--\r\n") == 400
        assert await sent(ours + part("fichier", "é€".encode(), file=False) + b"--x--\r\n") == 400
        assert await sent(ours + part("fichier", b"x" * 200_000, file=True) + b"--x--\r\n") in (400, 413)
        assert await sent(ours * 20 + b"--x--\r\n") in (400, 403)
        assert acts.keyring.standing(world.name).origin == "file"
