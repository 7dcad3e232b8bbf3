"""Training: phases, teacher forcing, losses, EMA, checkpoints.

A cascade, a spec and a data loader enter; the same cascade leaves trained, with events and
checkpoints on the disk. Callbacks follow it.
"""
