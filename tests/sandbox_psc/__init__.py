"""The Pro Sante Connect of the sandbox."""
