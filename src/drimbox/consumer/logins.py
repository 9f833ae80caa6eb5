"""Who is logged in, for work that goes on in the background: a token is asked for when it is needed, never kept."""

from __future__ import annotations

from drimbox.consumer.ports import Structures
from drimbox.consumer.sessions import Sessions
from drimbox.importing.ports import Login


class SessionLogins:
    """``importing.ports.Logins`` on the sessions of the browsers. Finds nobody before it is bound to them."""

    def __init__(self, structures: Structures) -> None:
        self._structures = structures
        self._sessions: Sessions | None = None

    def bind(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def find(self, person: str, structure: str) -> Login | None:
        """The login of a person who may act for a structure (its id in the configuration); None while there is none."""
        professional = self._sessions.professional(person) if self._sessions is not None else None
        if professional is None:
            return None
        for practice in professional.info.practices:
            served = self._structures.of(practice.structure_id)
            if served is not None and served.id == structure:
                return Login(professional.access_token, served.wado_tls)
        return None
