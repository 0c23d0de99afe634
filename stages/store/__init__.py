"""What the stages read and write with: paths, parameters, tables, logits."""
