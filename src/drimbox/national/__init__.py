"""The national services as this box calls them: the record (DMP), Pro Santé Connect, the whitelist."""
