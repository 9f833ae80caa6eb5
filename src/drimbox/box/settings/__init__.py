"""Every setting of a box, typed and documented. ``docs/settings.md`` is written from this file.

A box is one TOML file; any value may be given by an environment variable ``DRIMBOX__SECTION__KEY`` instead; secrets are
named by file. Relative paths are taken from the folder of the TOML file.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from drimbox.box.settings.box import BoxSection, DatabaseSection, StructureSection, TrustSection
from drimbox.box.settings.certificates import MarketCertificateSection
from drimbox.box.settings.common import Section
from drimbox.box.settings.console import ConsoleSection
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.box.settings.importing import check_targets
from drimbox.box.settings.journal import JournalSection, NotificationsSection
from drimbox.box.settings.keystore import KeystoreSection
from drimbox.box.settings.link import LinkSection, check_link
from drimbox.box.settings.link_images import LinkImagesSection
from drimbox.box.settings.national import DmpSection, PscSection, WhitelistSection
from drimbox.box.settings.pacs import PacsSection
from drimbox.box.settings.source import ManifestSection, SourceSection


class Settings(Section):
    """A box, whole."""

    box: BoxSection
    database: DatabaseSection = DatabaseSection()
    trust: TrustSection
    structures: tuple[StructureSection, ...] = Field(min_length=1)
    pacs: tuple[PacsSection, ...] = ()
    source: SourceSection | None = None
    manifest: ManifestSection = ManifestSection()
    consumer: ConsumerSection | None = None
    console: ConsoleSection | None = None
    link_images: LinkImagesSection = LinkImagesSection()
    journal: JournalSection = JournalSection()
    keystore: KeystoreSection = KeystoreSection()
    notifications: NotificationsSection | None = None
    market_certificate: MarketCertificateSection | None = None
    link: LinkSection | None = None
    dmp: DmpSection
    psc: PscSection
    whitelist: WhitelistSection

    @model_validator(mode="after")
    def _names_hold_together(self) -> Settings:
        known = {p.id for p in self.pacs}
        for structure in self.structures:
            unknown = set(structure.pacs) - known
            if unknown:
                raise ValueError(
                    f"la structure {structure.id} nomme un PACS absent de [[pacs]] : {', '.join(sorted(unknown))}"
                )
            if structure.identification != "EG" and not structure.legal_identifier:
                raise ValueError(
                    f"structure {structure.id} : identification {structure.identification} demande legal_identifier"
                )
        own = [s.identifier for s in self.structures]
        if twice := sorted({i for i in own if own.count(i) > 1}):
            raise ValueError(f"deux [[structures]] ont le même identifier : {', '.join(twice)}")
        for what, ids in (("structures", [s.id for s in self.structures]), ("pacs", [p.id for p in self.pacs])):
            if len(set(ids)) != len(ids):
                raise ValueError(f"deux [[{what}]] ont le même id")
        if self.consumer is not None:
            check_targets(self.consumer.imports.targets, {p.id: p.dicomweb is not None for p in self.pacs})
        if self.link is not None:
            check_link(self.link, source=self.source is not None, market=self.market_certificate)
        if self.psc.proxy is not None and not self.psc.proxy_token and self.dmp.consultation == "API_PSC":
            raise ValueError(
                "dmp.consultation API_PSC échange le jeton PSC contre celui du DMP : avec psc.proxy, "
                "psc.proxy_token doit dire où le proxy e-Santé le donne"
            )
        if self.source is None and self.consumer is None:
            raise ValueError("ni [source] ni [consumer] : la DRIMbox ne ferait rien")
        if self.source is not None and not self.pacs:
            raise ValueError("[source] demande au moins un [[pacs]]")
        return self
