"""The checks, grouped by subject; `converter.validation.checking` finds them here."""
