"""The command line: a lazy group and one file for each command.

Input: arguments. Output: text or JSON on stdout, and an exit code. The commands parse and print;
the other packages do the work.
"""
