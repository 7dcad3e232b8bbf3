"""Training: phases, teacher forcing, losses, EMA, checkpoints."""
