"""The manual: Markdown pages, and the code that generates the reference from the sources."""
