"""The demonstration: two sites and the national services on this machine, and the story that they play."""
