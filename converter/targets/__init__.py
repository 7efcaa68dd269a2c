"""One module or package per thing we write; each ends in ``TARGET`` (see converter.registry)."""
