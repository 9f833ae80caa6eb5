"""The lossless request of an import, a request of its own to the source (decision 24; DB.CO.73, SCN_CO.01 step 15)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from drimbox.foundation.errors import Refused, Rejected
from drimbox.identity.ins import Ins
from drimbox.importing.orders import WantedSeries
from drimbox.importing.ports import FetchedImage, HostLists, Login, SeriesFetcher


@dataclass(frozen=True, slots=True)
class LosslessFetcher:
    """Fetches the series of imports.

    ``lossless`` are the transfer syntaxes that are asked for, best first (blanks between those that are liked alike);
    ``as_stored`` are asked for once the source has said that it has the images in none of them: videos, and what was
    made with loss.
    """

    images: SeriesFetcher
    hosts: HostLists
    lossless: Sequence[str]
    as_stored: Sequence[str]

    @asynccontextmanager
    async def fetch(
        self, kos_uid: str, ins: Ins, series: WantedSeries, login: Login, folder: Path
    ) -> AsyncIterator[AsyncIterator[FetchedImage]]:
        """The images as they arrive, whole and checked, in ``folder``. Raises as ``images.client.WadoClient``.

        The address must be one of a DRIMbox of the signed list, in force now (decision 15).
        """
        await self._allowed(series.retrieve_url)
        async with aclosing(self._images(kos_uid, ins, series, login, folder)) as images:
            yield images

    async def _images(
        self, kos_uid: str, ins: Ins, series: WantedSeries, login: Login, folder: Path
    ) -> AsyncGenerator[FetchedImage, None]:
        try:
            async with aclosing(self._asked(kos_uid, ins, series, login, folder, self.lossless)) as images:
                async for image in images:
                    yield image
        except Rejected as error:
            if error.code != "syntax-unavailable" or not self.as_stored:
                raise
        else:
            return
        async with aclosing(self._asked(kos_uid, ins, series, login, folder, self.as_stored)) as images:
            async for image in images:
                yield image

    async def _asked(
        self, kos_uid: str, ins: Ins, series: WantedSeries, login: Login, folder: Path, accept: Sequence[str]
    ) -> AsyncGenerator[FetchedImage, None]:
        async with self.images.fetch_series(
            series.retrieve_url,
            tls=login.tls,
            token=login.token,
            kos_uid=kos_uid,
            accept=accept,
            expected=[i.sop_instance_uid for i in series.instances],
            ins=ins,
            folder=folder,
        ) as arriving:
            async for image in arriving:
                yield image

    async def _allowed(self, url: str) -> None:
        try:
            address = urlsplit(url)
            host = address.hostname
            plain = address.scheme == "https" and not address.username and not address.password
        except ValueError:
            plain, host = False, None
        if not plain or not host:
            raise Refused("L'adresse des images donnée par le KOS n'est pas une adresse https", code="retrieve-url")
        if not (await self.hosts.current()).allows_host(host):
            raise Refused("La source des images n'est pas dans la liste blanche des DRIMbox", code="host-not-listed")
