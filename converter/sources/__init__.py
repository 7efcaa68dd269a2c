"""One module or package per thing we read; each ends in ``SOURCE`` (see converter.registry)."""
