"""Data Docs: an index page, and the pages of Great Expectations."""
