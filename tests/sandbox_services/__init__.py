"""The national services together."""
