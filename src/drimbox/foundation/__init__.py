"""What every room stands on: clock, errors, identifiers, XML, HTTP. Knows nothing of the field."""
