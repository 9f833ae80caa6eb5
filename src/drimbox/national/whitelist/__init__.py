"""The whitelist: the signed list of the DRIMboxes of the network (standards.md K.5, decisions 15 and 16).

``document`` verifies and reads one list; ``keeper`` downloads it each day and keeps the last good one.
"""

from drimbox.national.whitelist.document import Domain, Whitelist, verify
from drimbox.national.whitelist.keeper import Held, Renewal, WhitelistKeeper

__all__ = ["Domain", "Held", "Renewal", "Whitelist", "WhitelistKeeper", "verify"]
