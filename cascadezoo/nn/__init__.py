"""Blocks of networks that stages share.

Tensors enter and leave. Blocks know nothing of stages, specs or training; this file imports
nothing, so ``sizes`` stays free of torch.
"""
