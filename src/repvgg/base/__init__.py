"""The ground: errors, files, metadata and optional packages. Everything may stand on it."""
