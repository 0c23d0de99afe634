"""Pages for people: report, time line, model card and Data Docs."""
