"""Training: phases, teacher forcing, losses, EMA, checkpoints.

A cascade, a spec and a data loader enter; the trained cascade leaves, with events and checkpoints
on the disk. Callbacks receive the events.
"""
