"""What OHIF is served, asked for by a DICOMweb client that is not ours."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from consumer_world import DOMINIQUE, Browser, Site, Study, make_study
from dicomweb_client import DICOMwebClient
from lxml import html
from pydicom.data import get_testdata_file

from drimbox.foundation.errors import Unavailable

CT = Path(get_testdata_file("CT_small.dcm"))
J2K = Path(get_testdata_file("693_J2KR.dcm"))
JPEG = Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
MULTI = Path(get_testdata_file("emri_small.dcm"))


async def opened(site: Site, study: Study) -> tuple[Browser, str]:
    """A browser with the study open; the root of the exam's DICOMweb service."""
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    (address,) = html.fromstring(page.body).xpath("//a[contains(@href, '/images/')]/@href")
    viewer = await browser.get(address)
    (frame,) = html.fromstring(viewer.body).xpath("//iframe/@src")
    return browser, f"{frame.split('/viewer?')[0]}/dicomweb"


@contextmanager
def client(site: Site, browser: Browser, root: str, authority_roots: Path) -> Iterator[DICOMwebClient]:
    session = requests.Session()
    # Proxies and certificate bundles of the environment are not for loopback.
    session.trust_env = False
    session.verify = str(authority_roots)
    session.headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in browser.cookies.items())
    with session:
        yield DICOMwebClient(f"{site.origin}{root}", session=session)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, DOMINIQUE, [[CT, CT], [J2K], [JPEG], [MULTI]])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened_things:
        yield opened_things


async def in_thread(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    return await asyncio.to_thread(call, *arguments, **more)


@pytest.mark.requirement("DB.CO.122", "DB.VI-CO.05")
async def test_another_client_finds_what_the_kos_lists(
    site: Site, study: Study, authority: Any, stack: ExitStack
) -> None:
    browser, root = await opened(site, study)
    web = stack.enter_context(client(site, browser, root, authority.roots))
    (found,) = await in_thread(web.search_for_studies)
    assert found["0020000D"]["Value"] == [study.manifest.study_uid]
    # The source's patient number must not end up in a query that OHIF would make of it.
    assert "00100020" not in found
    assert await in_thread(web.search_for_studies, search_filters={"StudyInstanceUID": "1.2.3"}) == []
    series = await in_thread(web.search_for_series, study.manifest.study_uid)
    assert [s["0020000E"]["Value"][0] for s in series] == [
        study.manifest.series[n].series_uid
        for n in (2, 0, 1, 3)  # the secondary capture first
    ]
    for listed in study.manifest.series:
        instances = await in_thread(web.search_for_instances, study.manifest.study_uid, listed.series_uid)
        assert len(instances) == len(listed.instances)
        metadata = await in_thread(web.retrieve_series_metadata, study.manifest.study_uid, listed.series_uid)
        assert [m["00080018"]["Value"][0] for m in metadata] == [i.sop_instance_uid for i in listed.instances]


@pytest.mark.requirement("DB.CO.73", "DB.CS.83")
async def test_frames_and_files_are_those_that_were_sent(
    site: Site, study: Study, authority: Any, stack: ExitStack
) -> None:
    browser, root = await opened(site, study)
    web = stack.enter_context(client(site, browser, root, authority.roots))
    for listed in study.manifest.series:
        originals = study.files[listed.retrieve_url]
        for instance, original in zip(listed.instances, originals, strict=True):
            uids = (study.manifest.study_uid, listed.series_uid, instance.sop_instance_uid)
            whole = await in_thread(web.retrieve_instance, *uids, media_types=(("application/dicom", "*"),))
            expected = pydicom.dcmread(original)
            assert whole.SOPInstanceUID == expected.SOPInstanceUID
            assert whole.PixelData == expected.PixelData
            path = f"{root}/studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}"
            frames = await browser.get(
                f"{path}/frames/1", Accept="multipart/related; type=application/octet-stream; transfer-syntax=*"
            )
            head, body = _part(frames.headers["Content-Type"], frames.body)
            assert f"transfer-syntax={expected.file_meta.TransferSyntaxUID}" in head
            assert np.array_equal(_decoded(expected, body), pydicom.dcmread(original).pixel_array[_first(expected)])
            single = json.loads((await browser.get(f"{path}/metadata")).body)
            assert single[0]["00080018"]["Value"] == [instance.sop_instance_uid]


def _first(dataset: pydicom.Dataset) -> Any:
    return 0 if int(dataset.get("NumberOfFrames", 1)) > 1 else slice(None)


def _decoded(original: pydicom.Dataset, body: bytes) -> np.ndarray[Any, Any]:
    """One frame as served, decoded by pydicom as a one-frame image."""
    dataset = pydicom.dcmread(io.BytesIO(_bytes_of(original)))
    dataset.NumberOfFrames = 1
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        dataset.PixelData = pydicom.encaps.encapsulate([body])
    else:
        dataset.PixelData = body
    return dataset.pixel_array


def _bytes_of(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _part(content_type: str, body: bytes) -> tuple[str, bytes]:
    boundary = content_type.split("boundary=")[1].encode()
    parts = body.split(b"--" + boundary)
    assert len(parts) == 3
    head, _, payload = parts[1].partition(b"\r\n\r\n")
    return head.decode(), payload.removesuffix(b"\r\n")


async def test_metadata_wait_for_the_series_and_tell_a_failure(site: Site, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [[CT, CT], [CT, CT]])
    site.sources.gate = asyncio.Event()
    broken = study.manifest.series[1]
    site.sources.failures[broken.retrieve_url] = Unavailable("Récupération des images interrompue", code="source-error")
    browser, root = await opened(site, study)
    web = f"{root}/studies/{study.manifest.study_uid}/series"
    whole = asyncio.create_task(browser.get(f"{web}/{study.manifest.series[0].series_uid}/metadata"))
    failing = asyncio.create_task(browser.get(f"{web}/{broken.series_uid}/metadata", Accept="application/dicom+json"))
    await asyncio.sleep(0.1)
    assert not whole.done()
    site.sources.gate.set()
    assert len(json.loads((await whole).body)) == 2
    assert (await failing).status == 503
    state = json.loads((await browser.get(f"{root.removesuffix('/dicomweb')}/etat")).body)
    assert [s["state"] for s in state["series"]] == ["done", "failed"]
    # A dead source is told from a dead PACS (DB.CO.112).
    assert "PACS" in state["series"][1]["reason"]
    assert state["series"][1]["again"]


@pytest.mark.parametrize(
    "path",
    [
        "/studies/1.2.3/series",
        "/studies/{study}/series/1.2.3/metadata",
        "/studies/{study}/series/{series}/instances/1.2.3",
        "/studies/{study}/series/{series}/instances/{image}/frames/2",
        "/studies/{study}/series/{series}/instances/{image}/frames/0",
        "/studies/{study}/series/{series}/instances/{image}/frames/x",
        "/studies/{study}/series/{series}/instances/{image}/frames/" + "9" * 5000,
        "/studies/{study}/series/{series}/instances/{image}/frames/1,1,9",
        "/studies/{study}/series/{series}/instances/{image}/bulkdata/00100010.zz",
        "/studies/{study}/series/{series}/instances/{image}/bulkdata/..%2f..%2fetc",
    ],
)
async def test_what_is_not_there_is_not_found(site: Site, tmp_path: Path, path: str) -> None:
    study = make_study(tmp_path, DOMINIQUE, [[CT]])
    browser, root = await opened(site, study)
    series = study.manifest.series[0]
    uids = {
        "study": study.manifest.study_uid,
        "series": series.series_uid,
        "image": series.instances[0].sop_instance_uid,
    }
    assert (await browser.get(root + path.format(**uids))).status in (404, 422)
