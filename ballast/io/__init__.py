"""Reading and showing what others wrote: digests, paths, URLs, YAML, printable text."""
