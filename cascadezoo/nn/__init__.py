"""Network blocks that stages share.

Tensors enter and leave. Blocks do not depend on stages, specs or training. This file imports
nothing, so ``sizes`` stays free of torch.
"""
