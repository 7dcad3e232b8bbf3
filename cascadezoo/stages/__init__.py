"""The stages: ``base`` is the contract, each kind has a folder.

Target and upstream image enter in training, losses and an estimate leave; in sampling the upstream
image enters and an image of ``out_size`` leaves. See README.md to add one.
"""
