"""How a batch runs: its size, its precision, its memory, the processor's cores."""
