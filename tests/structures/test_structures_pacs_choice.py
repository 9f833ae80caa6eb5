"""Which PACS is asked for a study, in which order, and what their answers mean together (DB.SO.04, decision 7)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import DrimboxError, Misconfigured, Rejected, Unavailable
from drimbox.pacs.study import Instance, Series, Study
from drimbox.publication.finding import Found, find_study, in_order
from drimbox.publication.ports import Site, SitePacs
from drimbox.reports.report import Structure

UID = "1.2.3"
PRIVATE, HOSPITAL = "1.2.250.1.1", "1.2.250.1.2"


def study(images: int) -> Study:
    instances = tuple(Instance("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.1.{i}", i) for i in range(1, images + 1))
    series = (Series("1.2.3.1", "CT", 1, "", "", instances),) if images else ()
    return Study(UID, "P", "", "A^B", "19790328", "F", "ACN", "", "", "20210108", "", "", "", series)


@dataclass
class Asked:
    """A PACS that holds so many images of the study (None: does not know it), or fails; and how often it was asked."""

    holds: int | None = None
    error: DrimboxError | None = None
    times: int = field(default=0)

    async def find(self, study_uid: str) -> Study | None:
        self.times += 1
        if self.error is not None:
            raise self.error
        return None if self.holds is None else study(self.holds)


def down() -> Asked:
    return Asked(error=Unavailable("Le PACS est injoignable", code="pacs-unreachable"))


def site(**pacs: SitePacs | Asked) -> Site:
    made = (p if isinstance(p, SitePacs) else SitePacs(name, p) for name, p in pacs.items())
    return Site("s", Structure("1750803447"), tuple(made))


def order(chosen: Site, **told: object) -> list[str]:
    return [p.id for p in in_order(chosen, **told)]  # type: ignore[arg-type]


@pytest.mark.requirement("DB.SO.04")
def test_the_sender_then_the_issuer_then_the_structure() -> None:
    finder = Asked()
    group = site(
        clinic=SitePacs("clinic", finder, senders=("RIS-C",), accession_issuers=(PRIVATE,)),
        archive=SitePacs("archive", finder),
        hospital=SitePacs("hospital", finder, senders=("RIS-H",), accession_issuers=(HOSPITAL,)),
        vna=SitePacs("vna", finder),
    )
    # Nothing told: those for everyone before those for somebody, in the order of the configuration.
    assert order(group) == ["archive", "vna", "clinic", "hospital"]
    assert order(group, sender="RIS-H") == ["hospital", "archive", "vna", "clinic"]
    assert order(group, accession_issuers=(PRIVATE,)) == ["clinic", "archive", "vna", "hospital"]
    # The sender goes before the issuer.
    assert order(group, sender="RIS-H", accession_issuers=[PRIVATE]) == ["hospital", "clinic", "archive", "vna"]
    # A report on two studies of two issuers.
    assert order(group, accession_issuers=(HOSPITAL, PRIVATE)) == ["clinic", "hospital", "archive", "vna"]
    # Who held it last time goes before all.
    assert order(group, sender="RIS-H", hint="vna") == ["vna", "hospital", "archive", "clinic"]
    assert order(group, sender="", hint="gone") == ["archive", "vna", "clinic", "hospital"]


@pytest.mark.requirement("DB.SO.04", "DB.SO.14")
async def test_no_one_is_asked_once_the_study_is_found() -> None:
    first, second, third = Asked(), Asked(holds=3), Asked(holds=9)
    assert await find_study(site(a=first, b=second, c=third), UID) == Found("b", study(3))
    assert (first.times, second.times, third.times) == (1, 1, 0)


@pytest.mark.requirement("DB.SO.04")
async def test_where_two_hold_it_the_configured_order_decides() -> None:
    """A modality's PACS and the archive behind it: a preference of the site, so that the KOS does not change sides."""
    modality, archive = Asked(holds=3), Asked(holds=5)
    dedicated = site(archive=archive, modality=SitePacs("modality", modality, senders=("RIS-A",)))
    assert await find_study(dedicated, UID, sender="RIS-A") == Found("modality", study(3))
    assert await find_study(dedicated, UID, sender="RIS-B") == Found("archive", study(5))
    assert await find_study(dedicated, UID, sender="RIS-A", hint="archive") == Found("archive", study(5))


async def test_a_study_without_images_gives_way_to_one_that_has_some() -> None:
    emptied = Asked(holds=0)
    assert await find_study(site(a=emptied, b=Asked(holds=2)), UID) == Found("b", study(2))
    assert await find_study(site(a=emptied, b=Asked()), UID) == Found("a", study(0))
    # The images may be with the one that does not answer: nothing is known yet.
    with pytest.raises(Unavailable):
        await find_study(site(a=emptied, b=down()), UID)


@pytest.mark.requirement("D7", "DB.SO.15")
async def test_absent_is_what_all_of_them_say() -> None:
    assert await find_study(site(a=Asked(), b=Asked()), UID) is None
    for silent in (down(), Asked(error=Rejected("Statut A700", code="pacs-find-rejected", peer_code="A700"))):
        asked = Asked()
        with pytest.raises(Unavailable) as caught:
            await find_study(site(a=silent, b=asked), UID)
        assert asked.times == 1
        assert silent.error is not None
        assert (caught.value.code, caught.value.peer_code) == (silent.error.code, silent.error.peer_code)
        # Found elsewhere, its answer is not needed.
        assert await find_study(site(a=silent, b=Asked(holds=1)), UID) == Found("b", study(1))


async def test_a_structure_without_a_pacs() -> None:
    with pytest.raises(Misconfigured) as caught:
        await find_study(site(), UID)
    assert caught.value.code == "pacs-none"


@pytest.mark.requirement("D7", "DB.SO.04")
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 3), st.just("down")),
            st.frozensets(st.sampled_from(["RIS-A", "RIS-B"])),
            st.frozensets(st.sampled_from([PRIVATE, HOSPITAL])),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["", "RIS-A", "RIS-B", "RIS-C"]),
    st.frozensets(st.sampled_from([PRIVATE, HOSPITAL, "1.2.250.1.3"])),
)
def test_whatever_the_choice_all_are_asked_before_it_is_absent(
    kinds: list[tuple[int | str | None, frozenset[str], frozenset[str]]], sender: str, issuers: frozenset[str]
) -> None:
    finders = [down() if kind == "down" else Asked(holds=kind) for kind, _, _ in kinds]  # type: ignore[arg-type]
    made = [
        SitePacs(str(i), finder, tuple(senders), tuple(known))
        for i, (finder, (_, senders, known)) in enumerate(zip(finders, kinds, strict=True))
    ]
    chosen = Site("s", Structure("1"), tuple(made))
    held = [kind for kind, _, _ in kinds if isinstance(kind, int)]
    try:
        found = asyncio.run(find_study(chosen, UID, sender=sender, accession_issuers=issuers))
    except Unavailable:
        assert "down" in [kind for kind, _, _ in kinds]
        assert not any(held)
    else:
        assert (found is None) == (held == [])
        assert found is None or found.study.instance_count or not any(held)
        if found is None:
            assert all(f.times == 1 for f in finders)
    assert all(f.times <= 1 for f in finders)
