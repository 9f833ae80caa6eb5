"""The PACSs of the site, made ready for who views their studies beside those of other sites."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack

from drimbox.box.listeners import listener_tls
from drimbox.box.pacs_links import linked, receiver_settings, viewable
from drimbox.box.services import Services
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.pacs import inbox
from drimbox.pacs.dimse.receiver import receiving
from drimbox.pacs.patient import PatientArchive

_log = logging.getLogger(__name__)


def local_archives(stack: AsyncExitStack, services: Services, section: ConsumerSection) -> Mapping[str, PatientArchive]:
    """Each PACS of the configuration whose images can be had, by its id. Raises ``Misconfigured``, ``OSError``."""
    sections = services.settings.pacs
    if not section.local.enabled or not sections:
        return {}
    listener = section.local.receiver
    desk = stack.enter_context(inbox.opened(services.settings.box.state_dir / "local-studies"))
    if listener is not None:
        tls = listener_tls(listener, services.trust, services.keyring, "consumer.local.receiver.tls")
        stack.enter_context(receiving(receiver_settings(listener, sections), desk, tls=tls))
    found: dict[str, PatientArchive] = {}
    for one in sections:
        link = linked(one, services)
        stack.callback(link.close)
        archive = viewable(one, link, desk, listener.ae_title if listener is not None else None, services)
        if archive is None:
            _log.warning("PACS %s moves its images only, and there is no receiver: not shown to users", one.id)
            continue
        found[one.id] = archive
    return found
