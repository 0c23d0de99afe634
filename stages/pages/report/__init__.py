"""The report's page: what it shows, its template, style and script."""
