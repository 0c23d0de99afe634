"""How batches are computed: size, precision, memory, cores."""
