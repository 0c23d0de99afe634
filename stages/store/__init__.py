"""How the stages read and write files: paths, parameters, tables, logits."""
