"""Fine-tuning: loop, gradients, processes, checkpoints."""
