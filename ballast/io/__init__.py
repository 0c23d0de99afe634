"""Read and show untrusted content safely: digests, paths, URLs, YAML, printable text."""
