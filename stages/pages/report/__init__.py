"""The HTML report: its content, template and script."""
