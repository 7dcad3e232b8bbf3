"""Stages: ``base`` holds the contract, each family has a folder. See README.md for a new one."""
