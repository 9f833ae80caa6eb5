"""Measurements, each beside a limit or a peer of the same run. They report; they never decide whether a test passes."""
