"""The command line: a lazy group and one file for each command.

Arguments enter; text or JSON on stdout and an exit code leave. The commands parse and print; all
work is done in the other packages.
"""
