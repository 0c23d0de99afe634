"""Fine-tuning: the loop, its gradients, its processes, its checkpoints."""
