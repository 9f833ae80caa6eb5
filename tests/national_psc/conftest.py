"""Pro Sante Connect and a client of it, on real TLS."""

import datetime as dt
from collections.abc import AsyncIterator

import pytest
from psc_double import SECRET, PscDouble, make_client, running

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.national.psc.client import PscClient
from drimbox.sandbox.pki import TestAuthority


@pytest.fixture
async def psc(authority: TestAuthority) -> AsyncIterator[PscDouble]:
    async with running(PscDouble(FixedClock(dt.datetime.now(dt.UTC).replace(microsecond=0))), authority) as double:
        yield double


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


@pytest.fixture
def client(psc: PscDouble, http: HttpClient, authority: TestAuthority) -> PscClient:
    return make_client(psc, http, authority, SECRET)


@pytest.fixture
def tls_client(psc: PscDouble, http: HttpClient, authority: TestAuthority) -> PscClient:
    return make_client(psc, http, authority, None)
