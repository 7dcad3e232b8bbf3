"""Publishes a model to a folder or to a repo on the Hub.

A finished model folder enters; one commit, or a checked copy, leaves. All checks precede the first
request that changes the repo.
"""
