"""The pages that people read: report, time line, model card, Data Docs."""
