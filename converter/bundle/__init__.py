"""Our own HDF5 file: one track, self-describing, readable by any HDF5 tool. See docs/bundle.md."""
